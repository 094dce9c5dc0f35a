"""Architectures, as pure Keras functions; conf/model/*.yaml chooses one through `_target_` and names its arguments.

Every model takes raw pixels, uint8 (n, 28, 28) from 0 to 255, and scales them in its first layer, so that training and
serving cannot differ. Every model ends in class probabilities, float32 (n, 10), whatever the precision before.
"""

import socket
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
from keras import layers

from fashion_mnist.errors import UserError

IMAGE_SHAPE = (28, 28)
CLASSES = 10
SECONDS_FOR_AN_ANSWER = 10


def mlp(name: str, hidden: Sequence[int], activation: str, dropout: float = 0.0, l2: float = 0.0) -> keras.Model:
    """A multilayer perceptron; with `hidden=[128]`, the network of https://www.tensorflow.org/tutorials/keras/classification.

    Args:
        name: the model's name.
        hidden: neurons of each hidden layer; without any, the model is multinomial logistic regression.
        activation: of the hidden layers.
        dropout: share of neurons of each hidden layer dropped in training (Srivastava et al., 2014,
            https://jmlr.org/papers/v15/srivastava14a.html).
        l2: how much the squares of the hidden layers' weights add to the loss.
    """
    hidden_layers: list[keras.Layer] = []
    for neurons in hidden:
        penalty = keras.regularizers.L2(l2) if l2 else None
        hidden_layers.append(layers.Dense(neurons, activation, kernel_regularizer=penalty))
        if dropout:
            hidden_layers.append(layers.Dropout(dropout))
    return keras.Sequential([*raw_pixels(), layers.Flatten(), *hidden_layers, probabilities()], name=name)


def cnn(
    name: str,
    filters: Sequence[int],
    kernel_size: int,
    dropout: float,
    hidden: Sequence[int],
    activation: str,
    convolutions: int = 1,
    block_dropout: float = 0.0,
) -> keras.Model:
    """Blocks of convolutions and one pooling, after LeNet-5 (LeCun et al., 1998, https://doi.org/10.1109/5.726791).

    Args:
        name: the model's name.
        filters: filters of each block; the first of at most four halves the image's side, and so does each other.
        kernel_size: side of the square kernels, in pixels.
        dropout: share of features dropped after all blocks in training.
        hidden: neurons of each hidden layer after the blocks.
        activation: of the convolutional and hidden layers.
        convolutions: of each block, one after the other; two, as in VGG (https://arxiv.org/abs/1409.1556).
        block_dropout: share of features dropped after each block in training.
    """
    blocks: list[keras.Layer] = []
    for count in filters:
        blocks += [
            layers.Conv2D(count, kernel_size, padding="same", activation=activation) for _ in range(convolutions)
        ]
        blocks.append(layers.MaxPooling2D())
        if block_dropout:
            blocks.append(layers.Dropout(block_dropout))
    return keras.Sequential(
        [
            *raw_pixels(),
            layers.Reshape((*IMAGE_SHAPE, 1)),
            *blocks,
            layers.Flatten(),
            layers.Dropout(dropout),
            *(layers.Dense(neurons, activation) for neurons in hidden),
            probabilities(),
        ],
        name=name,
    )


def resnet(name: str, filters: Sequence[int], blocks: int, activation: str) -> keras.Model:
    """A residual network for small images (He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385).

    Args:
        name: the model's name.
        filters: filters of each stage; every stage after the first halves the image's side.
        blocks: residual blocks, of two convolutions each, in each stage.
        activation: after each batch normalisation.
    """

    def convolution(features, count: int, kernel_size: int, stride: int):
        features = layers.Conv2D(count, kernel_size, stride, padding="same", use_bias=False)(features)
        return layers.BatchNormalization()(features)

    inputs, rescaling = raw_pixels()
    features = layers.Reshape((*IMAGE_SHAPE, 1))(rescaling(inputs))
    features = layers.Activation(activation)(convolution(features, filters[0], 3, 1))
    for stage, count in enumerate(filters):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            branch = layers.Activation(activation)(convolution(features, count, 3, stride))
            branch = convolution(branch, count, 3, 1)
            if features.shape != branch.shape:
                features = convolution(features, count, 1, stride)
            features = layers.Activation(activation)(layers.Add()([features, branch]))
    outputs = probabilities()(layers.GlobalAveragePooling2D()(features))
    return keras.Model(inputs, outputs, name=name)


def transfer(name: str, backbone: str, weights: str, side: int, dropout: float) -> keras.Model:
    """A network that knows photographs, and a last layer of our own (https://keras.io/guides/transfer_learning).

    The backbone is frozen; `trainer.frozen_epochs` says when it learns too.

    Args:
        name: the model's name.
        backbone: a class of `keras.applications` that takes pixels from 0 to 255.
        weights: `imagenet` for Keras's, from its cache or else downloaded; a file with such; or `random`.
        side: the images are enlarged to so many pixels each way.
        dropout: share of the backbone's features dropped in training.
    """
    inputs = keras.Input(IMAGE_SHAPE, dtype="uint8")
    grey = layers.Resizing(side, side)(layers.Reshape((*IMAGE_SHAPE, 1))(inputs))
    network = pretrained(backbone, weights, side)
    network.trainable = False
    features = network(layers.Concatenate()([grey, grey, grey]))
    return keras.Model(inputs, probabilities()(layers.Dropout(dropout)(features)), name=name)


def pretrained(backbone: str, weights: str, side: int) -> keras.Model:
    """A network of `keras.applications` without its last layer."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_FOR_AN_ANSWER)  # Keras would wait for ever
    file = None if weights == "random" else str(Path(weights).expanduser())
    settings = {"include_top": False, "input_shape": (side, side, 3), "pooling": "avg"}
    try:
        with warnings.catch_warnings(action="ignore"):  # that the weights were learned at another size
            return getattr(keras.applications, backbone)(weights=file, **settings)
    except Exception as error:
        if "URL fetch failure" not in str(error) and not isinstance(error, TimeoutError):
            raise
        raise UserError(
            f"the weights of {backbone} are not in Keras's cache, and cannot be downloaded ({error}); give a copy of "
            "that file with model.weights=FILE, or start anew with model.weights=random trainer.frozen_epochs=0."
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def probabilities() -> keras.Layer:
    """The last layer of every model, exact whatever the precision before."""
    return layers.Dense(CLASSES, "softmax", dtype="float32")


def raw_pixels() -> list:
    """The first layers of every model: bytes in, numbers from 0 to 1 out."""
    return [keras.Input(IMAGE_SHAPE, dtype="uint8"), layers.Rescaling(1 / 255)]
