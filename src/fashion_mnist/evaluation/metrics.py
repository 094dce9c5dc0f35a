"""What predictions are worth: accuracy, loss, F1, calibration, confusion; and what they cost: arithmetic, time."""

import logging
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

REPEATS = 5


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of actual (row) by predicted (column) classes, int (classes, classes)."""
    return np.bincount(actual.astype(int) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def summarize(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The numbers that stand for an evaluation, from labels (n,), probabilities (n, classes) and their confusion."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    f1 = 2 * counts.diagonal() / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return {
        "test_accuracy": float(counts.trace() / counts.sum()),
        # Clipped as Keras clips bare probabilities, lest one image make it infinite. `model.evaluate` of Keras takes
        # the numbers before the softmax instead, and clips nothing: its loss can be a little greater.
        "test_loss": float(-np.log(np.maximum(of_truth, 1e-7)).mean()),
        "test_macro_f1": float(f1.mean()),
        "test_calibration_error": calibration_error(labels, probabilities),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, averaged over bins of equal width.

    Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, equation 3.
    """
    bins = 15  # in (0, 1], as many as in the paper
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


def prediction_costs(model: "keras.Model", images: np.ndarray) -> dict[str, float]:
    """The costs as metrics for MLflow, which shows what begins with `system/` on a page of its own.

    The time is that of a batch of images, uint8, divided by their number.
    """
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        np.asarray(model(images, training=False))
        seconds.append(time.perf_counter() - start)
    return {
        "system/parameters": model.count_params(),
        "system/flops_per_image": flops_per_image(model),
        "system/prediction_microseconds": 1e6 * statistics.median(seconds) / len(images),
    }


def flops_per_image(model: "keras.Model") -> int:
    """Floating-point operations for one image, as TensorFlow's profiler counts them: a multiply-add is two."""
    import tensorflow as tf

    profiler = tf.compat.v1.profiler
    image = tf.TensorSpec((1, *model.input_shape[1:]), tf.uint8)
    graph = tf.function(model).get_concrete_function(image, training=False).graph
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of its own use of an old function
    try:
        return profiler.profile(graph, options=options).total_float_ops
    finally:
        logger.setLevel(level)
