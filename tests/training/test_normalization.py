"""Batch normalisation by the fused kernel: Keras's mathematics, in training only."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fashion_mnist.training.normalization import fused

SHAPE = (16, 6, 5, 4)


def network() -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE[1:]), layers.BatchNormalization(momentum=0.8, scale=False)])


def learned(model: keras.Model, features: tf.Tensor) -> list[np.ndarray]:
    """What a training step sees and leaves behind: features, gradients, averages."""
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(features)
        normalized = model(features, training=True)
        loss = tf.reduce_sum(tf.cast(normalized, "float32") ** 3)
    return [
        np.array(each, "float32") for each in (normalized, *tape.gradient(loss, [features, *variables]), *model.weights)
    ]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.05)])
def test_the_mathematics_is_that_of_keras(precision: str, tolerance: float) -> None:
    keras.config.set_dtype_policy(precision)
    features = tf.cast(tf.random.stateless_normal(SHAPE, (0, 1), 3.0, 2.0), keras.config.dtype_policy().compute_dtype)
    with_kernel, plain = network(), network()
    with fused(with_kernel):
        found = learned(with_kernel, features)
    for one, other in zip(found, learned(plain, features), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_afterwards_the_layer_is_keras_own() -> None:
    model = network()
    with fused(model):
        assert "call" in vars(model.layers[0])
    assert "call" not in vars(model.layers[0])


def test_frozen_and_flat_features_are_left_to_keras() -> None:
    model = keras.Sequential([keras.Input(SHAPE[1:]), layers.BatchNormalization(trainable=False), layers.Flatten()])
    model.add(layers.BatchNormalization())
    with fused(model):
        assert not any("call" in vars(layer) for layer in model.layers)
