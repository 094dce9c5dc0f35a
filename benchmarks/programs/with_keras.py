"""Keras, as the references call it and by its defaults, and our own training."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from program import Learned, Outcome, Task, main

# TensorFlow is imported by each program, since ours has a way of its own to do it.


CNN = ("model=cnn", "optimizer=adam", "trainer=default")  # as the peers train it


@contextlib.contextmanager
def clock() -> Iterator[list[float]]:
    """Lists the times at which the epochs of a `fit` begin, and when the last one has ended.

    From one beginning to the next, an epoch comes with its validation and with everything that callbacks do.
    """
    import keras

    times: list[float] = []

    def note(*_: object) -> None:
        times.append(time.perf_counter())

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=note, on_train_end=note)
    fit = keras.Model.fit

    def fit_and_note(model: keras.Model, *arguments: Any, callbacks: Any = None, **settings: Any) -> Any:
        return fit(model, *arguments, callbacks=[*(callbacks or ()), callback], **settings)

    with mock.patch.object(keras.Model, "fit", fit_and_note):
        yield times


def outcome(times: list[float], history: dict[str, list[float]]) -> Outcome:
    """What is left without the first epoch."""
    seconds = [end - start for start, end in itertools.pairwise(times)]
    return Outcome(seconds[1:], Learned(float(history["loss"][-1]), float(history["accuracy"][-1])))


def reference(task: Task) -> Outcome:
    """Trains as reference.py does."""
    from tensorflow import keras  # pyright: ignore[reportMissingModuleSource]

    layers = keras.layers
    return defaults(
        task,
        [
            layers.Flatten(input_shape=(28, 28)),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
    )


def cnn(task: Task) -> Outcome:
    """Trains the network of conf/model/cnn.yaml in the same way."""
    from tensorflow import keras  # pyright: ignore[reportMissingModuleSource]

    layers = keras.layers
    return defaults(
        task,
        [
            layers.Reshape((28, 28, 1), input_shape=(28, 28)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
    )


def defaults(task: Task, layers: list[Any]) -> Outcome:
    """Trains these layers with nothing but Keras's defaults."""
    from tensorflow import keras  # pyright: ignore[reportMissingModuleSource]

    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    with clock() as times:
        fitted = model.fit(task.images / 255.0, task.labels, epochs=1 + task.epochs)
    return outcome(times, fitted.history)


def ours(task: Task, *overrides: str, validation: int = 0, tracked: bool = False) -> Outcome:
    """Trains by our own code.

    Args:
        task: all its images are learned from, also those that are validated on.
        overrides: of conf/.
        validation: images to validate on after each epoch.
        tracked: records it in MLflow, as the main job does.
    """
    from fashion_mnist.startup import import_tensorflow

    import_tensorflow()
    from fashion_mnist.cli import compose
    from fashion_mnist.data.dataset import Split, read_dataset
    from fashion_mnist.tracking.run import opened, recorder
    from fashion_mnist.training.build import build
    from fashion_mnist.training.fit import fit

    config = compose([f"trainer.epochs={1 + task.epochs}", *overrides])
    dataset = read_dataset(task.data, validation)
    model = build(config)
    callbacks, checkpoint = [], None
    with contextlib.ExitStack() as stack:
        if tracked:
            model, run, checkpoint = stack.enter_context(opened(config, dataset))
            stack.enter_context(run.sending())
            callbacks = [recorder(run, checkpoint)]
        times = stack.enter_context(clock())
        history = fit(model, Split(task.images, task.labels), dataset.validation, config, callbacks, checkpoint)
    return outcome(times, history)


if __name__ == "__main__":
    main(
        {
            "reference": reference,
            "ours": lambda task: ours(task, validation=5000, tracked=True),
            "untracked": lambda task: ours(task, validation=5000),
            "cnn": cnn,
            "our_cnn": lambda task: ours(task, *CNN),
            "our_cnn_bfloat16": lambda task: ours(task, *CNN, "trainer.precision=bfloat16"),
        },
        packages=("tensorflow", "keras", "mlflow"),
    )
