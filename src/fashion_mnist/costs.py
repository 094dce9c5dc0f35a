"""What a model costs when it is used: parameters, arithmetic, time."""

import logging
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

REPEATS = 5


def of_prediction(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """The costs as metrics for MLflow, which shows what begins with `system/` on a page of its own.

    Args:
        model: takes uint8 (n, 28, 28).
        images: a batch, uint8 (n, 28, 28), of which the time of a single image is taken.
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


def flops_per_image(model: keras.Model) -> int:
    """Floating-point operations for one image, as TensorFlow's profiler counts them: a multiply-add is two."""
    profiler = tf.compat.v1.profiler
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((1, 28, 28), tf.uint8), training=False).graph
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of its own use of an old function
    try:
        return profiler.profile(graph, options=options).total_float_ops
    finally:
        logger.setLevel(level)
