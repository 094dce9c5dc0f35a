"""The arithmetic that no way of training can do without: what is left when everything else costs nothing."""

import numpy as np
from program import BATCH, Outcome, Task, main, repeat


def products(task: Task) -> Outcome:
    """The hidden layer's two matrix products of each step, on one batch and without anything in between."""
    draw = np.random.default_rng(0).random
    images, kernel, slopes = (draw(shape, np.float32) for shape in ((BATCH, 784), (784, 128), (BATCH, 128)))
    hidden, gradient = np.empty_like(slopes), np.empty_like(kernel)

    def epoch() -> None:
        for _ in range(task.steps):
            np.matmul(images, kernel, out=hidden)
            np.matmul(images.T, slopes, out=gradient)

    return repeat(task, epoch)


def convolutions(task: Task) -> Outcome:
    """The five convolutions of each step in TensorFlow: two forwards, the gradients of two kernels and of one input."""
    import tensorflow as tf

    def draw(*shape: int) -> tf.Tensor:
        return tf.random.uniform(shape, -1, 1)

    pixels, pooled = draw(BATCH, 28, 28, 1), draw(BATCH, 14, 14, 32)
    kernel_1, kernel_2 = draw(3, 3, 1, 32), draw(3, 3, 32, 64)
    slopes_1, slopes_2 = draw(BATCH, 28, 28, 32), draw(BATCH, 14, 14, 64)
    how = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    forwards, kernels, inputs = tf.raw_ops.Conv2D, tf.raw_ops.Conv2DBackpropFilter, tf.raw_ops.Conv2DBackpropInput

    @tf.function
    def step() -> list[tf.Tensor]:
        return [
            forwards(input=pixels, filter=kernel_1, **how),
            forwards(input=pooled, filter=kernel_2, **how),
            inputs(input_sizes=pooled.shape, filter=kernel_2, out_backprop=slopes_2, **how),
            kernels(input=pooled, filter_sizes=kernel_2.shape, out_backprop=slopes_2, **how),
            kernels(input=pixels, filter_sizes=kernel_1.shape, out_backprop=slopes_1, **how),
        ]

    def epoch() -> None:
        for _ in range(task.steps - 1):
            step()
        step()[-1].numpy()

    return repeat(task, epoch)


if __name__ == "__main__":
    main({"products": products, "convolutions": convolutions}, packages=("numpy",))
