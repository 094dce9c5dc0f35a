"""Architectures, as pure Keras functions; conf/model/*.yaml chooses one through `_target_` and names its arguments.

Every model takes raw pixels, uint8 (n, height, width) or (n, height, width, 3) from 0 to 255, and scales them in its
first layer, so that training and serving cannot differ. Every model ends in class probabilities, float32 (n, classes),
whatever the precision before. `image_shape` and `classes` are those of the dataset, and no keys of conf/.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

IMAGE_SHAPE = (28, 28)  # of Fashion-MNIST
CLASSES = 10
Shape = tuple[int, ...]  # of an image: height and width, and 3 for colours
NORMALIZATION_MOMENTUM = 0.9  # Keras's 0.99 lags behind weights that learn in a few hundred steps
MEAN = "mean"  # the last layer of a model that answers with the mean of several answers


def mlp(
    name: str,
    hidden: Sequence[int],
    activation: str,
    dropout: float = 0.0,
    l2: float = 0.0,
    *,
    image_shape: Shape = IMAGE_SHAPE,
    classes: int = CLASSES,
) -> keras.Model:
    """A multilayer perceptron; with `hidden=[128]`, the network of https://www.tensorflow.org/tutorials/keras/classification.

    `hidden` holds the neurons of each hidden layer; without any, the model is multinomial logistic regression. A share
    `dropout` of them is dropped in training (Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html).
    `l2` is how much the squares of the hidden layers' weights add to the loss.
    """
    stack = [*raw_pixels(image_shape), layers.Flatten()]
    for neurons in hidden:
        penalty = keras.regularizers.L2(l2) if l2 else None
        stack.append(layers.Dense(neurons, activation, kernel_regularizer=penalty))
        if dropout:
            stack.append(layers.Dropout(dropout))
    return keras.Sequential([*stack, probabilities(classes)], name=name)


def cnn(
    name: str,
    filters: Sequence[int],
    kernel_size: int,
    dropout: float,
    hidden: Sequence[int],
    activation: str,
    convolutions: int = 1,
    block_dropout: float = 0.0,
    *,
    image_shape: Shape = IMAGE_SHAPE,
    classes: int = CLASSES,
) -> keras.Model:
    """Blocks of convolutions and one pooling, after LeNet-5 (LeCun et al., 1998, https://doi.org/10.1109/5.726791).

    Each block has so many filters in each of its `convolutions` (two, as in VGG,
    https://arxiv.org/abs/1409.1556), with square kernels of `kernel_size` pixels a side, and halves the image's side.
    Hidden layers of so many neurons follow. In training, a share `block_dropout` of the features is dropped after each
    block, and a share `dropout` after all of them.
    """
    check_halving(image_shape, len(filters))
    stack = [*raw_pixels(image_shape), with_channels(image_shape)]
    for count in filters:
        for _ in range(convolutions):
            stack.append(layers.Conv2D(count, kernel_size, padding="same", activation=activation))
        stack.append(layers.MaxPooling2D())
        if block_dropout:
            stack.append(layers.Dropout(block_dropout))
    stack += [layers.Flatten(), layers.Dropout(dropout)]
    stack += [layers.Dense(neurons, activation) for neurons in hidden]
    return keras.Sequential([*stack, probabilities(classes)], name=name)


def resnet(
    name: str,
    filters: Sequence[int],
    blocks: Sequence[int],
    activation: str,
    dropout: float = 0.0,
    *,
    image_shape: Shape = IMAGE_SHAPE,
    classes: int = CLASSES,
) -> keras.Model:
    """A residual network for small images, after Page's ResNet-9 (2018, https://myrtle.ai/learn/how-to-train-your-resnet).

    Each stage is a convolution with so many filters, a pooling that halves the image's side, and so many residual
    blocks of two convolutions (He et al., 2016, https://arxiv.org/abs/1512.03385). Pooling comes before normalisation,
    which has a quarter of the features to go through then. The last layer sees every place of the last features apart,
    since all garments lie alike; in training, a share `dropout` of them is dropped.
    """
    check_halving(image_shape, len(filters))

    def normalized(features):
        return layers.Activation(activation)(layers.BatchNormalization(momentum=NORMALIZATION_MOMENTUM)(features))

    def convolution(features, count: int):
        return layers.Conv2D(count, 3, padding="same", use_bias=False)(features)

    inputs, rescaling = raw_pixels(image_shape)
    features = with_channels(image_shape)(rescaling(inputs))
    for count, residual in zip(filters, blocks, strict=True):
        features = normalized(layers.MaxPooling2D()(convolution(features, count)))
        for _ in range(residual):
            branch = normalized(convolution(features, count))
            features = layers.Add()([features, normalized(convolution(branch, count))])
    features = layers.Dropout(dropout)(layers.Flatten()(features))
    return keras.Model(inputs, probabilities(classes)(features), name=name)


def mean_of(members: Sequence[keras.Model], name: str, mirrored: bool = False) -> keras.Model:
    """Answers with the mean of what several models say (Lakshminarayanan et al., 2017, https://arxiv.org/abs/1612.01474).

    With `mirrored`, each is asked of an image and of its mirror image (Krizhevsky et al., 2012,
    https://doi.org/10.1145/3065386, section 4.1). The models must have names of their own.
    """
    images = keras.Input(members[0].input_shape[1:], dtype="uint8")
    views = [images, keras.ops.flip(images, axis=2)] if mirrored else [images]
    mean = layers.Average(dtype="float32", name=MEAN)
    return keras.Model(images, mean([member(view) for member in members for view in views]), name=name)


def members_of(model: keras.Model) -> list[keras.Model]:
    """The parts that learn, each by itself: the models inside one that answers with their mean, or else the model."""
    if model.layers[-1].name != MEAN:
        return [model]
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def side_by_side(answers: Sequence[tf.Tensor]) -> Any:
    """What several members answer in training, one after another, float32 (members * n, classes).

    The gradients are as large as each member's own, though the loss is the mean over all members. It is taken from the
    numbers before the softmax, which Keras keeps beside a single model's answers: a probability that was rounded to
    nothing has no gradient.
    """

    @tf.custom_gradient
    def undivided(values: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.identity(values), lambda gradient: len(answers) * gradient

    logits: Any = [getattr(answer, "_keras_logits", None) for answer in answers]
    if any(each is None for each in logits):  # of an architecture that ends in no softmax
        return undivided(tf.concat(answers, axis=0))
    together: Any = tf.nn.softmax(joined := undivided(tf.concat(logits, axis=0)))
    together._keras_logits = joined
    return together


def probabilities(classes: int = CLASSES) -> keras.Layer:
    """The last layer of every model, exact whatever the precision before."""
    return layers.Dense(classes, "softmax", dtype="float32")


def raw_pixels(image_shape: Shape = IMAGE_SHAPE) -> list:
    """The first layers of every model: bytes in, numbers from 0 to 1 out."""
    return [keras.Input(image_shape, dtype="uint8"), layers.Rescaling(1 / 255)]


def with_channels(image_shape: Shape) -> keras.Layer:
    """What convolutions need after the first layers, since grey images come without a channel."""
    return layers.Reshape((*image_shape, 1) if len(image_shape) == 2 else image_shape)


def check_halving(image_shape: Shape, times: int) -> None:
    """Refuses images that are too small to be halved so many times; raises ValueError."""
    if min(image_shape[:2]) < 2**times:
        height, width = image_shape[:2]
        raise ValueError(f"filters halve the image {times} times, and {height} x {width} pixels are too few for that")
