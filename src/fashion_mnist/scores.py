"""What predictions are worth: accuracy, loss, F1, calibration, confusion. Pure functions."""

from collections.abc import Sequence

import numpy as np


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of actual (row) by predicted (column) classes, int (classes, classes)."""
    return np.bincount(actual.astype(int) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def summarize(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The numbers that stand for an evaluation.

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
        "test_calibration_error": calibration_error(labels, probabilities),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, averaged over bins of equal width.

    Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, equation 3.

    Args:
        labels: (n,).
        probabilities: float (n, classes).
        bins: in (0, 1], as many as in the paper.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    each = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(each, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


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
