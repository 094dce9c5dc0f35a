"""Augmentation: random changes to training images, as pure Keras layers that do nothing at inference.

Each takes and gives raw pixels, uint8 (n, height, width) or (n, height, width, 3), and draws afresh for every image.
They run inside the compiled loop, in front of the model, and are no part of what is saved.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from fashion_mnist.config import AugmentConfig
from fashion_mnist.errors import UserError
from fashion_mnist.models import Shape


def layers_of(config: AugmentConfig) -> list[keras.Layer]:
    """The layers that a configuration asks for, in the order in which they are applied."""
    layers: list[keras.Layer] = []
    if config.flip:
        layers.append(Flip())
    if config.shift:
        layers.append(Shift(config.shift))
    if config.erasing:
        layers.append(RandomErasing(config.erasing))
    if config.cutout:
        layers.append(Cutout(config.cutout))
    return layers


def check_reach(config: AugmentConfig, image_shape: Shape) -> None:
    """Raises UserError where a layer could leave nothing of images of this shape."""
    side = min(image_shape[:2])
    for key, value, limit in (("shift", config.shift, side), ("cutout", config.cutout, 2 * side)):
        if value >= limit:
            pixels = " x ".join(map(str, image_shape[:2]))
            raise UserError(f"augment.{key}={value} leaves nothing of {pixels} pixels; take less than {limit}.")


class Augmentation(keras.Layer):
    """Draws its random numbers from a generator of its own, and leaves images alone outside training."""

    def __init__(self) -> None:
        super().__init__(dtype="uint8")
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.change(images) if training else images

    def change(self, images: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def draw(self, shape: tuple[tf.Tensor | int, ...], low: float, high: float) -> tf.Tensor:
        """Numbers from [low, high), float32 of some shape."""
        numbers: Any = keras.random.uniform(shape, low, high, "float32", seed=self.seed_generator)
        return numbers

    def draw_one(self, images: tf.Tensor, low: float, high: float) -> tf.Tensor:
        """One number for each image from [low, high), float32 (n, 1)."""
        return self.draw((tf.shape(images)[0], 1), low, high)

    def draw_whole(self, images: tf.Tensor, low: int, high: int) -> tf.Tensor:
        """One whole number for each image from low to high, both included, int32 (n, 1)."""
        return tf.cast(tf.floor(self.draw_one(images, low, high + 1)), tf.int32)


class Flip(Augmentation):
    """Mirrors each image, left to right, with probability 1/2."""

    def change(self, images: tf.Tensor) -> tf.Tensor:
        mirrored = self.draw_one(images, 0, 1)[:, :, None] < 0.5
        return tf.where(over_pixels(mirrored, images), tf.reverse(images, [2]), images)


class Shift(Augmentation):
    """Moves each image by up to `pixels` along each axis; what enters is black."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def change(self, images: tf.Tensor) -> tf.Tensor:
        height, width, *colours = shape_of(images)
        margin = (self.pixels, self.pixels)
        padded = tf.pad(images, ((0, 0), margin, margin, *((0, 0) for _ in colours)))
        rows = tf.range(height)[None] + self.draw_whole(images, 0, 2 * self.pixels)
        columns = tf.range(width)[None] + self.draw_whole(images, 0, 2 * self.pixels)
        moved = tf.gather(padded, rows, axis=1, batch_dims=1)
        return tf.gather(moved, columns[:, None, :] + tf.zeros_like(rows)[:, :, None], axis=2, batch_dims=2)


class RandomErasing(Augmentation):
    """Fills a rectangle with noise (Zhong et al., 2020, https://arxiv.org/abs/1708.04896).

    The probability is that of each image. The rectangle covers 2 to 40 percent of it, with a ratio of its sides from
    0.3 to 1 / 0.3, as in the paper; a side that would be longer than the image is cut to it.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def change(self, images: tf.Tensor) -> tf.Tensor:
        height, width, *_ = shape_of(images)
        area = self.draw_one(images, 0.02, 0.4) * height * width
        ratio = tf.exp(self.draw_one(images, math.log(0.3), -math.log(0.3)))
        tall = tf.minimum(tf.round(tf.sqrt(area * ratio)), height)
        wide = tf.minimum(tf.round(tf.sqrt(area / ratio)), width)
        top = tf.floor(self.draw_one(images, 0, 1) * (height - tall + 1))
        left = tf.floor(self.draw_one(images, 0, 1) * (width - wide + 1))
        erased = inside(height, top, tall)[:, :, None] & inside(width, left, wide)[:, None, :]
        erased &= self.draw_one(images, 0, 1)[:, :, None] < self.probability
        noise = self.draw((tf.shape(images)[0], *shape_of(images)), 0, 256)
        return tf.where(over_pixels(erased, images), tf.cast(noise, tf.uint8), images)


class Cutout(Augmentation):
    """Blackens a square around a random pixel (DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552).

    As in the paper, the square, `side` pixels wide, may reach over the edge, so that some images keep more than others.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def change(self, images: tf.Tensor) -> tf.Tensor:
        height, width, *_ = shape_of(images)
        top = self.draw_whole(images, 0, height - 1) - self.side // 2
        left = self.draw_whole(images, 0, width - 1) - self.side // 2
        cut = inside(height, top, self.side)[:, :, None] & inside(width, left, self.side)[:, None, :]
        return tf.where(over_pixels(cut, images), tf.zeros_like(images), images)


def shape_of(images: tf.Tensor) -> list[int]:
    """Height and width, and 3 where there are colours."""
    shape: Any = images.shape
    return list(shape[1:])


def over_pixels(places: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """What holds for places, bool (n, height, width), whatever the colours that images have."""
    return places if len(shape_of(images)) == 2 else tf.expand_dims(places, -1)


def inside(size: int, start: tf.Tensor, length: tf.Tensor | int) -> tf.Tensor:
    """Which of `size` places lie in a stretch, bool (n, size); start and length are (n, 1)."""
    places = tf.cast(tf.range(size)[None], start.dtype)
    return (places >= start) & (places < start + length)
