"""Architectures, as pure Keras functions; conf/model/*.yaml chooses one through `_target_` and names its arguments.

Every model takes raw pixels, uint8 (n, 28, 28) from 0 to 255, and scales them in its first layer, so that training and
serving cannot differ. Every model ends in class probabilities, float32 (n, 10), whatever the precision before.
"""

from collections.abc import Sequence

import keras
from keras import layers

IMAGE_SHAPE = (28, 28)
CLASSES = 10


def mlp(name: str, hidden: Sequence[int], activation: str) -> keras.Model:
    """A multilayer perceptron; with `hidden=[128]`, the network of https://www.tensorflow.org/tutorials/keras/classification.

    Args:
        name: the model's name.
        hidden: neurons of each hidden layer.
        activation: of the hidden layers.
    """
    return keras.Sequential(
        [
            *raw_pixels(),
            layers.Flatten(),
            *(layers.Dense(neurons, activation) for neurons in hidden),
            layers.Dense(CLASSES, "softmax", dtype="float32"),
        ],
        name=name,
    )


def cnn(
    name: str, filters: Sequence[int], kernel_size: int, dropout: float, hidden: Sequence[int], activation: str
) -> keras.Model:
    """Blocks of one convolution and one pooling, after LeNet-5 (LeCun et al., 1998, https://doi.org/10.1109/5.726791).

    Args:
        name: the model's name.
        filters: filters of each block; the first of at most four halves the image's side, and so does each other.
        kernel_size: side of the square kernels, in pixels.
        dropout: share of features dropped after the blocks in training (Srivastava et al., 2014,
            https://jmlr.org/papers/v15/srivastava14a.html).
        hidden: neurons of each hidden layer after the blocks.
        activation: of the convolutional and hidden layers.
    """
    blocks: list[keras.Layer] = []
    for count in filters:
        blocks += [layers.Conv2D(count, kernel_size, padding="same", activation=activation), layers.MaxPooling2D()]
    return keras.Sequential(
        [
            *raw_pixels(),
            layers.Reshape((*IMAGE_SHAPE, 1)),
            *blocks,
            layers.Flatten(),
            layers.Dropout(dropout),
            *(layers.Dense(neurons, activation) for neurons in hidden),
            layers.Dense(CLASSES, "softmax", dtype="float32"),
        ],
        name=name,
    )


def raw_pixels() -> list:
    """The first layers of every model: bytes in, numbers from 0 to 1 out."""
    return [keras.Input(IMAGE_SHAPE, dtype="uint8"), layers.Rescaling(1 / 255)]
