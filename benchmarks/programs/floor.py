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


def step(task: Task) -> Outcome:
    """The whole training by hand in one XLA program: no Keras, no callbacks, no validation, no accuracy."""
    import tensorflow as tf

    images, labels = tf.constant(task.images.reshape(-1, 784)), tf.constant(task.labels.astype(np.int32))
    weights = [tf.random.uniform((784, 128), -0.08, 0.08), tf.zeros(128), tf.random.uniform((128, 10), -0.2, 0.2)]
    weights.append(tf.zeros(10))
    zeros = [tf.zeros_like(weight) for weight in weights]
    state = (tf.constant(0.0), weights, zeros, zeros)

    def train(numbers: tf.Tensor, count, weights, means, squares, loss):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            pixels = tf.cast(tf.gather(images, numbers), tf.float32) / 255
            scores = tf.nn.relu(pixels @ weights[0] + weights[1]) @ weights[2] + weights[3]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, numbers), scores)
            mean_loss = tf.reduce_mean(losses)
        count += 1
        gradients = tape.gradient(mean_loss, weights)
        means = [0.9 * mean + 0.1 * slope for mean, slope in zip(means, gradients, strict=True)]
        squares = [0.999 * square + 0.001 * slope**2 for square, slope in zip(squares, gradients, strict=True)]
        rate = 0.001 * tf.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        updates = zip(weights, means, squares, strict=True)
        weights = [weight - rate * mean / (tf.sqrt(square) + 1e-7) for weight, mean, square in updates]
        return count, weights, means, squares, loss + mean_loss

    @tf.function(jit_compile=True, autograph=False)
    def run(order: tf.Tensor, state):
        def body(index: tf.Tensor, *state):
            return index + 1, *train(order[index], *state)

        return tf.while_loop(lambda index, *_: index < task.steps, body, (0, *state, 0.0))[1:]

    shuffle = np.random.default_rng(0).permutation

    def epoch() -> None:
        nonlocal state
        order = shuffle(task.steps * BATCH).reshape(task.steps, BATCH)
        *state, loss = run(tf.constant(order, tf.int32), state)
        float(loss)

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
    main({"products": products, "step": step, "convolutions": convolutions}, packages=("numpy",))
