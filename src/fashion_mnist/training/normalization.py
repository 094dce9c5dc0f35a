"""Batch normalisation in training, by TensorFlow's fused kernel."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def fused(model: keras.Model) -> Iterator[None]:
    """Lets the training step that is being traced normalise batches of images in one pass.

    Keras's own layer is made of a dozen operations, each of which reads or writes the whole batch; with bfloat16 it
    goes through float32 besides. The mathematics is the same, and outside of the training step nothing changes.
    """
    layers: list[Any] = [part for part in model._flatten_layers() if isinstance(part, keras.layers.BatchNormalization)]
    layers = [layer for layer in layers if layer.trainable and layer.input_spec.ndim == 4 and layer.axis in (-1, 3)]
    for layer in layers:
        layer.call = functools.partial(normalize, layer)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)  # several devices trace at once, and share it


def normalize(layer: Any, images: tf.Tensor, training: bool = True, mask: None = None) -> tf.Tensor:
    """What `layer.call` gives in training for features (n, height, width, channels), of the same type."""
    scale = tf.ones_like(layer.moving_mean) if layer.gamma is None else layer.gamma.value
    offset = tf.zeros_like(layer.moving_mean) if layer.beta is None else layer.beta.value
    normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        images, scale, offset, epsilon=layer.epsilon, is_training=True
    )
    pixels = tf.cast(tf.size(images) / tf.size(mean), "float32")
    variance *= 1 - 1 / pixels  # the kernel gives that of a sample, Keras averages that of the batch
    for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        average.assign(average * layer.momentum + value * (1 - layer.momentum))
    return normalized
