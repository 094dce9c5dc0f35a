"""Evaluates a trained variant on the test set: metrics, confusion matrix, a table per class, a grid of predictions.

Everything is added to the MLflow run that trained the model, which is found by the model's digest.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.errors import UserError
from fashion_mnist.results import write_metrics, write_table
from fashion_mnist.startup import import_tensorflow

if TYPE_CHECKING:
    import keras

Metrics = dict[str, float]
EVALUATION_BATCH = 1000


def evaluate(config: Config, run_id: str | None = None) -> Metrics:
    """Evaluates the model in `models/<variant>`; the only step that reads the test set.

    Args:
        config: says which model and dataset.
        run_id: the MLflow run that trained the model; None to find it by the model's digest.

    Returns:
        Accuracy, loss (mean cross-entropy) and macro F1.
    """
    from fashion_mnist import store, tracking
    from fashion_mnist.data import load_test, read_card
    from fashion_mnist.sources import prepare

    if not config.model_file.is_file():
        command = " ".join(["python -m fashion_mnist.train", *config.overrides])
        raise UserError(f"there is no model in {config.model_file}; train it first: {command}")
    store.check(config.tracking, config.overrides)
    config.make_folders()
    folder = prepare(config.data, config.data_root)
    card = read_card(folder)
    test = load_test(folder, card)

    import_tensorflow()
    from fashion_mnist import plots, saving

    model = saving.load(config.model_file)
    probabilities = predict(model, test.images)
    counts = confusion(test.labels, probabilities.argmax(axis=1), len(card.class_names))
    metrics = summarize(test.labels, probabilities, counts)
    per_class = per_class_table(counts, card.class_names)

    output = config.folder("plots") / "test"
    write_table(output / "per_class.csv", per_class)
    pairs = zip(test.labels, probabilities.argmax(axis=1), strict=True)
    names = card.class_names
    write_table(output / "predictions.csv", [{"actual": names[a], "predicted": names[p]} for a, p in pairs])
    title = f"{config.variant} on the test set of {card.title}"
    plots.write(plots.confusion_matrix(counts, names, title), output / "confusion_matrix.png")
    plots.write(plots.predictions(test, probabilities, names, title), output / "predictions.png")
    write_metrics(config.folder("metrics") / "test.json", metrics)
    evaluated = tracking.log_evaluation(config, card, metrics, output, run_id)
    tracking.label_step(config.tracking, f"evaluate {config.variant}", f"Recorded in run `{evaluated}`.")
    show(title, metrics, per_class)
    return metrics


def predict(model: "keras.Model", images: np.ndarray) -> np.ndarray:
    """Class probabilities, float32 (n, classes), of images, uint8 (n, 28, 28).

    Calls the model batch by batch; `model.predict` would first compile a function for as many calls as that takes.
    """
    batches = np.split(images, range(EVALUATION_BATCH, len(images), EVALUATION_BATCH))
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of actual (row) by predicted (column) classes, int (classes, classes)."""
    return np.bincount(actual.astype(int) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def summarize(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> Metrics:
    """The three numbers that stand for an evaluation.

    Args:
        labels: (n,).
        probabilities: float (n, classes).
        counts: the confusion matrix of the same predictions.
    """
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    f1 = 2 * counts.diagonal() / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return {
        "test_accuracy": float(counts.trace() / counts.sum()),
        "test_loss": float(-np.log(np.maximum(of_truth, 1e-7)).mean()),  # Keras clips at the same value
        "test_macro_f1": float(f1.mean()),
    }


def per_class_table(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, str | float | int]]:
    """Precision, recall, F1 and the most frequent mistake of each class."""
    rows = []
    for label, name in enumerate(class_names):
        hits, images, guesses = counts[label, label], counts[label].sum(), counts[:, label].sum()
        mistakes = np.where(np.arange(len(counts)) == label, -1, counts[label])
        rows.append(
            {
                "class": name,
                "precision": round(float(hits / max(guesses, 1)), 4),
                "recall": round(float(hits / max(images, 1)), 4),
                "f1": round(float(2 * hits / max(images + guesses, 1)), 4),
                "images": int(images),
                "most often taken for": class_names[int(mistakes.argmax())] if mistakes.max() > 0 else "-",
            }
        )
    return rows


def show(title: str, metrics: Metrics, per_class: Sequence[dict]) -> None:
    """Prints the table per class, and the whole in one line below."""
    caption = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    table = Table(title=title, caption=caption)
    for column in per_class[0]:
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    for row in per_class:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main(evaluate)
