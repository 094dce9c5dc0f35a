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

    `hidden` holds the neurons of each hidden layer; without any, the model is multinomial logistic regression. A share
    `dropout` of them is dropped in training (Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html).
    `l2` is how much the squares of the hidden layers' weights add to the loss.
    """
    stack = [*raw_pixels(), layers.Flatten()]
    for neurons in hidden:
        penalty = keras.regularizers.L2(l2) if l2 else None
        stack.append(layers.Dense(neurons, activation, kernel_regularizer=penalty))
        if dropout:
            stack.append(layers.Dropout(dropout))
    return keras.Sequential([*stack, probabilities()], name=name)


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

    Each block, of at most four, has so many filters in each of its `convolutions` (two, as in VGG,
    https://arxiv.org/abs/1409.1556), with square kernels of `kernel_size` pixels a side, and halves the image's side.
    Hidden layers of so many neurons follow. In training, a share `block_dropout` of the features is dropped after each
    block, and a share `dropout` after all of them.
    """
    stack = [*raw_pixels(), layers.Reshape((*IMAGE_SHAPE, 1))]
    for count in filters:
        for _ in range(convolutions):
            stack.append(layers.Conv2D(count, kernel_size, padding="same", activation=activation))
        stack.append(layers.MaxPooling2D())
        if block_dropout:
            stack.append(layers.Dropout(block_dropout))
    stack += [layers.Flatten(), layers.Dropout(dropout)]
    stack += [layers.Dense(neurons, activation) for neurons in hidden]
    return keras.Sequential([*stack, probabilities()], name=name)


def resnet(name: str, filters: Sequence[int], blocks: int, activation: str) -> keras.Model:
    """A residual network for small images (He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385).

    Each stage has so many filters, and `blocks` residual blocks of two convolutions each; every stage after the first
    halves the image's side.
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

    The backbone, a class of `keras.applications` that takes pixels from 0 to 255, is frozen; `trainer.frozen_epochs`
    says when it learns too. Its weights are `imagenet` for Keras's, from its cache or else downloaded; a file with
    such; or `random`. The images are enlarged to `side` pixels each way, and a share `dropout` of the backbone's
    features is dropped in training.
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
