"""JAX: an epoch of the 784-128-10 network is one compiled `lax.scan`, with Adam written out."""

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
from program import BATCH, Learned, Outcome, Task, main, repeat


def scan(task: Task) -> Outcome:
    """Trains; images stay on the device as bytes, and every buffer of weights is reused."""
    all_images, all_labels = jnp.asarray(task.images.reshape(-1, 784)), jnp.asarray(task.labels, jnp.int32)

    @jax.jit
    def weights(key):
        first, second = jax.random.split(key)
        uniform = jax.nn.initializers.glorot_uniform()
        return [uniform(first, (784, 128)), jnp.zeros(128), uniform(second, (128, 10)), jnp.zeros(10)]

    def loss(parameters, images, labels):
        w1, b1, w2, b2 = parameters
        outputs = jax.nn.relu(images.astype(jnp.float32) / 255 @ w1 + b1) @ w2 + b2
        chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], 1)
        return -chosen.mean(), (outputs.argmax(1) == labels).sum()

    def epoch_of(state, batches, images, labels):
        def step(state, numbers):
            parameters, means, squares, count = state
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            reported, gradients = value_and_grad(parameters, images[numbers], labels[numbers])
            count += 1
            rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
            squares = [0.999 * s + 0.001 * g * g for s, g in zip(squares, gradients, strict=True)]
            moments = zip(parameters, means, squares, strict=True)
            parameters = [p - rate * m / (jnp.sqrt(s) + 1e-7) for p, m, s in moments]
            return (parameters, means, squares, count), reported

        return jax.lax.scan(step, state, batches)

    compiled = jax.jit(epoch_of, donate_argnums=0)
    parameters = weights(jax.random.key(0))
    zeros = [[jnp.zeros_like(parameter) for parameter in parameters] for _ in range(2)]
    state = (parameters, *zeros, jnp.float32(0))
    generator = np.random.default_rng(0)

    def epoch() -> Learned:
        nonlocal state
        order = generator.permutation(len(all_labels)).astype(np.int32).reshape(-1, BATCH)
        state, (losses, right) = compiled(state, order, all_images, all_labels)
        return Learned(float(losses.mean()), int(right.sum()) / len(all_labels))

    return repeat(task, epoch)


if __name__ == "__main__":
    main({"scan": scan}, packages=("jax",))
