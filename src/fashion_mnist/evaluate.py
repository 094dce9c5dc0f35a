"""Evaluates a trained variant on the test set: metrics, confusion matrix, a table per class, a grid of predictions.

The probabilities of all test images are kept, so that `compare` needs no model.

Everything is added to the MLflow run that trained the model, which is found by the model's digest.
"""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from fashion_mnist.checks import as_one_run
from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import Card, Dataset, card_in, images_at_once
from fashion_mnist.errors import UserError, terminal
from fashion_mnist.evaluation.metrics import confusion, per_class_table, prediction_costs, summarize
from fashion_mnist.evaluation.predictions import write_predictions
from fashion_mnist.files import write_figure, write_metrics, write_table
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import lineage, store
from fashion_mnist.tracking.outbox import Outbox
from fashion_mnist.tracking.run import find_run, ready

if TYPE_CHECKING:
    import keras

DIVIDED = ("fashion_mnist.images:", "tensorflow_datasets:")  # sources of which this project may draw the test images
NAMED = {"accuracy": "accuracy", "macro F1": "macro_f1", "loss": "loss"}  # in sentences
MOST_ROWS = 20  # of classes in the terminal; the file has them all


def evaluate(config: Config) -> dict[str, float]:
    """Evaluates the variant's model in the folder of results, and adds what comes of it to the run that trained it."""
    if not config.model_file.is_file():
        command = shlex.join(["python", "-m", "fashion_mnist.train", *as_one_run(config.overrides)])
        raise UserError(f"there is no model in {config.model_file}; train it first: {command}")
    dataset = ready(config)
    refuse_other_classes(config, dataset.card)
    metrics = evaluate_model(config, dataset)
    client = store.connect(config.tracking)
    run = Outbox(client, config.tracking.uri, find_run(client, config, dataset.card))
    add_evaluation(config, dataset.card, metrics, run)
    run.close()
    store.label_step(config.tracking, f"evaluate {config.variant}", f"Recorded in run `{run.run_id}`.")
    return metrics


def refuse_other_classes(config: Config, card: Card) -> None:
    """Refuses to judge a model on images or classes that it has not learned, or on images that it may know by heart.

    The latter is seen of pictures under the name that they had in training, unless the model is of garments.
    """
    learned, asked = card_in(config.model_file), None if card.of_garments else card
    if (learned and (learned.class_names, learned.image_shape)) != (asked and (asked.class_names, asked.image_shape)):
        about = learned.title if learned else "garments"
        raise UserError(
            f"{config.model_file} is a model of {about}, with other images or classes than {card.title} has."
        )
    if learned and learned.name == card.name and card.source.startswith(DIVIDED) and divided_anew(learned, card):
        raise UserError(
            f"{config.model_file} was trained on another division of {card.title}: images that it is to be tested on "
            "may be among those that it has learned; train it again."
        )


def divided_anew(learned: Card, card: Card) -> bool:
    """Whether both parts have other images than before; where one has the same, none has changed sides."""
    parts = [[f"{part}_images.npy", f"{part}_labels.npy"] for part in ("train", "test")]
    return all(any(learned.files.get(file) != card.files.get(file) for file in part) for part in parts)


def evaluate_model(config: Config, dataset: Dataset) -> dict[str, float]:
    """Writes and shows what the model makes of the test set; nothing else reads the test set.

    Returns:
        Accuracy, loss (mean cross-entropy), macro F1 and calibration error; and what a prediction costs.
    """
    import_tensorflow()
    from fashion_mnist.evaluation import plots
    from fashion_mnist.training import saving

    model, test, names = saving.load(config.model_file), dataset.test, dataset.card.class_names
    probabilities = predict(model, test.images)
    predicted = probabilities.argmax(axis=1)
    counts = confusion(test.labels, predicted, len(names))
    metrics = summarize(test.labels, probabilities, counts)
    per_class = per_class_table(counts, names)

    output = config.folder("plots") / "test"
    write_table(output / "per_class.csv", per_class)
    write_predictions(config.predictions_file, test.labels, probabilities)
    pairs = zip(test.labels, predicted, strict=True)
    write_table(output / "predictions.csv", [{"actual": names[a], "predicted": names[p]} for a, p in pairs])
    title = f"{config.variant} on the test set of {dataset.card.title}"
    write_figure(plots.confusion_matrix(counts, names, title), output / "confusion_matrix.png")
    write_figure(plots.predictions(*test, probabilities, names, title), output / "predictions.png")
    spent = prediction_costs(model, test.images[: images_at_once(dataset.card.image_shape)])
    of_model = {"flops_per_image": int(spent["system/flops_per_image"])}
    write_metrics(config.folder("metrics") / "test.json", metrics | of_model)
    show(title, metrics, per_class)
    return metrics | spent


def add_evaluation(config: Config, card: Card, metrics: dict[str, float], run: Outbox) -> None:
    if run.tags.get("model_digest") != lineage.file_digest(config.model_file):
        raise UserError(f"another run has replaced {config.model_file} meanwhile; give each a folder: output_dir=...")
    run.measure(metrics, of_model=True)
    for file in sorted((config.folder("plots") / "test").iterdir()):
        run.add(file, "plots")
    run.add(config.predictions_file, "predictions")
    description = run.tags.get("mlflow.note.content", "").partition("\n\nTest accuracy")[0]
    scores = [f"{name} {metrics[f'test_{key}']:.4f}" for name, key in NAMED.items()]
    result = f"Test {', '.join(scores)} on {card.title}."
    run.tag({"mlflow.note.content": f"{description}\n\n{result}"})


def predict(model: "keras.Model", images: np.ndarray) -> np.ndarray:
    """Class probabilities, float32 (n, classes), of images, uint8 (n, height, width[, 3]).

    Calls the model batch by batch; `model.predict` would first compile a function for as many calls as that takes.
    """
    at_once = images_at_once(images.shape[1:])
    batches = np.split(images, range(at_once, len(images), at_once))
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])


def show(title: str, metrics: dict[str, float], per_class: Sequence[dict]) -> None:
    """Of many classes, those that are recognised worst."""
    caption = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    if len(per_class) > MOST_ROWS:
        caption += f"; of {len(per_class)} classes, the {MOST_ROWS} with the lowest F1"
        per_class = sorted(per_class, key=lambda row: row["f1"])[:MOST_ROWS]
    table = Table(title=title, caption=caption)
    for column in per_class[0]:
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    for row in per_class:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    terminal().print(table)


if __name__ == "__main__":
    main(evaluate)
