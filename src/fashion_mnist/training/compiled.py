"""The compiled loop: a Keras model whose `fit` runs many steps in one call, on images that stay on the device.

Keras drives every batch from Python, which costs several times what the arithmetic of a small model takes. Here the
images lie on the device once, as bytes, and a whole block of steps is one compiled `tf.while_loop` around Keras's own
`train_step`: same mathematics, same batches, same callbacks.
"""

import contextlib
import functools
import itertools
import math
import mmap
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from fashion_mnist.data.dataset import Split, images_at_once
from fashion_mnist.models import members_of, side_by_side
from fashion_mnist.training.normalization import fused

BLOCK_SECONDS = 0.4  # progress moves about twice a second
TRIAL_SECONDS = 0.05  # long enough to tell how fast steps are


class Numbered(np.ndarray, DataAdapter):
    """Images that Keras goes through by number: `fit` and `evaluate` iterate over a dataset that stands for them.

    For everyone else, such as MLflow's autologging, they are the array that they are.
    """

    numbers: tf.data.Dataset

    @classmethod
    def of(cls, images: np.ndarray, numbers: tf.data.Dataset) -> Self:
        """The same images, not copied."""
        numbered = images.view(cls)
        numbered.numbers = numbers
        return numbered

    def __getitem__(self, key: Any) -> Any:
        return self.view(np.ndarray)[key]  # the numbers stand for all of them, not for a part

    def get_tf_dataset(self) -> tf.data.Dataset:
        return self.numbers

    @property
    def num_batches(self) -> int:
        return int(self.numbers.cardinality())


class CompiledModel(keras.Model):
    """Trains another model: shares its layers and weights, and adds nothing that would be saved.

    `fit` takes `batches()` as its data. The position in the shuffled images follows from the optimizer's count of
    steps, and all randomness from the seed and that count, so that neither the size of a block nor an interruption
    changes the result. The last step of an epoch takes the images that are left.

    `model` is functional or sequential and takes the images, uint8, which `augmentation` takes and gives; `validation`
    may be empty. Of a model that answers with a mean, each member learns by itself, from the same images. An image
    counts as much in the loss as `class_weights`, float32 (classes,), say of its class, as in Keras's `fit`.
    """

    def __init__(
        self,
        model: keras.Model,
        training: Split,
        validation: Split,
        batch_size: int,
        seed: int,
        augmentation: Sequence[keras.Layer] = (),
        class_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__(inputs=model.inputs, outputs=model.outputs, name=model.name)
        # Tuples and functions, since Keras would count lists of variables, layers and generators as parts of the model.
        self.training_set = resident(training)
        self.validation_set = resident(validation)
        self.batch_size, self.seed = batch_size, seed
        self.training_images, self.validation_images = len(training.labels), len(validation.labels)
        self.validation_batch = images_at_once(validation.images.shape[1:])
        self.full_batches, self.rest = divmod(self.training_images, batch_size)
        self.steps = self.full_batches + bool(self.rest)
        self.augment = lambda images: functools.reduce(lambda x, layer: layer(x, training=True), augmentation, images)
        generators = [part._seed_generators for layer in (model, *augmentation) for part in layer._flatten_layers()]
        self.generators = lambda: itertools.chain(*generators)
        self.class_weights = lambda: class_weights
        self.trained = lambda: model
        self.members = lambda: members_of(model)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> Any:
        if not training:
            return super().call(inputs, training, mask)
        answers = [member(inputs, training=True) for member in self.members()]
        return side_by_side(answers) if len(answers) > 1 else answers[0]

    def batches(self) -> tf.data.Dataset:
        """What `fit` is to be given: an element for each step of an epoch, with the numbers of the step's images.

        The compiled loop looks the numbers up by itself, and the elements only count. Several devices divide each
        element among themselves.
        """
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return tf.data.Dataset.range(self.steps)

        def one_epoch():
            order = self.shuffled(self.position()[0])
            yield from np.split(order, range(self.batch_size, len(order), self.batch_size))

        numbers = tf.data.Dataset.from_generator(one_epoch, output_signature=tf.TensorSpec([None], tf.int32))
        return numbers.apply(tf.data.experimental.assert_cardinality(self.steps))

    def validation_batches(self) -> tf.data.Dataset | None:
        if not self.validation_images:
            return None
        return tf.data.Dataset.range(self.validation_images, output_type=tf.int32).batch(self.validation_batch)

    def position(self) -> tuple[int, int]:
        """How many epochs and, in the present one, how many steps the optimizer has done."""
        return divmod(int(self.optimizer._iterations.numpy()), self.steps)  # `iterations` leaves out accumulated steps

    def shuffled(self, epoch: int) -> np.ndarray:
        """The order of the images in an epoch, int32 (n,).

        Each epoch has its own; Keras's seeded `fit` gives all epochs the same.
        """
        return np.random.default_rng([self.seed, epoch]).permutation(self.training_images).astype(np.int32)

    def train_step(self, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step on the images with these numbers, int32 (batch,)."""
        images, labels = (tf.gather(part, numbers) for part in self.training_set)
        labels = tf.tile(labels, [len(self.members())])  # each member learns as if it were alone
        with self.stateless(), fused(self):
            return super().train_step((self.augment(images), labels, *self.weights_of(labels)))

    def weights_of(self, labels: tf.Tensor) -> list[tf.Tensor]:
        """What each image counts in the loss, float32 (n,); nothing where all count the same."""
        weights = self.class_weights()
        return [] if weights is None else [tf.gather(tf.constant(weights), tf.cast(labels, tf.int32))]

    def test_step(self, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        return super().test_step(tuple(tf.gather(part, numbers) for part in self.validation_set))

    @contextlib.contextmanager
    def stateless(self) -> Iterator[None]:
        """Lets every random draw of the step that is being traced depend on seed, place and step alone.

        Keras counts draws in a variable instead, which a resumed or differently divided training would not share.
        """
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        for place, generator in enumerate(self.generators()):
            draws = itertools.count()

            def draw(ordered: bool = True, place: int = place, draws: itertools.count = draws) -> tf.Tensor:
                mixed = np.random.SeedSequence([self.seed, place, next(draws)]).generate_state(1)
                place_and_device = tf.cast(mixed[0], tf.int64) + tf.cast(device, tf.int64)
                return tf.stack([place_and_device, tf.convert_to_tensor(self.optimizer._iterations)])

            generator.next = draw
        try:
            yield
        finally:
            for generator in self.generators():
                vars(generator).pop("next", None)  # several devices trace at once, and share it

    def make_train_function(self, force: bool = False) -> None:
        """Makes what `fit` calls for each block: the compiled loop from the optimizer's position on.

        Several devices must exchange gradients after each step, outside any loop; there Keras's own way is taken.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return super().make_train_function(force)
        if self.train_function is not None and not force:
            return None

        @functools.lru_cache(maxsize=1)
        def order_of(epoch: int) -> tf.Tensor:
            return tf.constant(self.shuffled(epoch))

        @tf.function(jit_compile=self.jit_compile, autograph=False)
        def block(order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> dict[str, tf.Tensor]:
            def body(step: tf.Tensor) -> tuple[tf.Tensor]:
                with quick_random_numbers() if self.jit_compile else contextlib.nullcontext():
                    self.train_step(order[step])
                return (step + 1,)

            tf.while_loop(lambda step: step < stop, body, [start], parallel_iterations=1)
            return self.get_metrics_result()

        # Another shape would be another compilation by XLA, of the same length, for one step of an epoch.
        rest = tf.function(self.train_step, jit_compile=False, autograph=False)

        def train_function(_: object) -> dict[str, tf.Tensor]:
            epoch, start = self.position()
            stop = min(start + self.steps_per_execution, self.steps)
            order = order_of(epoch)
            logs = {}
            if start < self.full_batches:
                blocks = tf.reshape(order[: self.full_batches * self.batch_size], (-1, self.batch_size))
                logs = block(blocks, tf.constant(start), tf.constant(min(stop, self.full_batches)))
            if stop > self.full_batches:
                logs = rest(order[-self.rest :])
            return logs

        self.train_function = train_function
        return None

    def make_test_function(self, force: bool = False) -> None:
        """Makes what `evaluate` calls; its batches are large, and XLA would only cost time."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return super().make_test_function(force)
        if self.test_function is not None and not force:
            return None
        step = tf.function(self.test_step, autograph=False, reduce_retracing=True)

        def test_function(batches: Iterator[tf.Tensor]) -> dict[str, tf.Tensor]:
            logs = {}
            for numbers in itertools.islice(batches, self.steps_per_execution):
                logs = step(numbers)
            return logs

        self.test_function = test_function
        return None

    def _maybe_symbolic_build(self, iterator: object = None, data_batch: object = None) -> None:
        """Builds the metrics; Keras would take the numbers that `fit` is given for images.

        It does so for several devices only, whose metrics cannot be built in the middle of a step.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            with self.distribute_strategy.scope():
                self._symbolic_build(data_batch=tuple(tf.gather(part, [0]) for part in self.training_set))

    def save(self, *arguments: Any, **settings: Any) -> None:
        """Saves the model that is trained, which loads without this class."""
        self.trained().save(*arguments, **settings)

    def predict(self, *arguments: Any, **settings: Any) -> Any:
        """Predicts with the model that is trained, which knows nothing of blocks of steps."""
        return self.trained().predict(*arguments, **settings)

    def choose_block(self) -> None:
        """Compiles the loop, and makes a block of as many steps as fill `BLOCK_SECONDS`; undoes what that changed."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return
        self.optimizer.build(self.trainable_variables)
        variables = [*self.variables, *self.optimizer.variables]
        before = [variable.numpy() for variable in variables]
        self.make_train_function()

        def seconds_of(steps: int) -> float:
            self.steps_per_execution = steps
            start = time.perf_counter()
            float(self.train_function(None)["loss"])
            seconds = time.perf_counter() - start
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            return seconds

        seconds_of(1)  # compiles
        steps = 1
        while (seconds := seconds_of(steps)) < TRIAL_SECONDS and steps < self.steps:
            steps = min(8 * steps, self.steps)
        self.steps_per_execution = min(self.steps, math.ceil(steps * BLOCK_SECONDS / seconds))


@contextlib.contextmanager
def quick_random_numbers() -> Iterator[None]:
    """Lets the step that is being traced draw with ThreeFry: XLA's default on a CPU takes forty times as long.

    Keras leaves the choice to TensorFlow, whose own kernels know no ThreeFry, and have no need of it.
    """
    uniform, dropout = tf.random.stateless_uniform, tf.nn.experimental.stateless_dropout
    tf.random.stateless_uniform = functools.partial(uniform, alg="threefry")
    tf.nn.experimental.stateless_dropout = functools.partial(dropout, rng_alg="threefry")
    try:
        yield
    finally:
        tf.random.stateless_uniform, tf.nn.experimental.stateless_dropout = uniform, dropout


def resident(split: Split) -> tuple[tf.Variable, ...]:
    """Images and labels on the device, or on each of several."""
    variables = tuple(tf.Variable(tf.constant(part), trainable=False) for part in split)
    for part in split:
        if file := getattr(part, "_mmap", None):  # the pages that were read count as ours until they are given back
            file.madvise(mmap.MADV_DONTNEED)
    return variables
