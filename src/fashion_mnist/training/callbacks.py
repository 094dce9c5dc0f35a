"""What happens between epochs: a checkpoint; a person, a target or no more progress ends training."""

import contextlib
import math
import shutil
import signal
import time
from types import FrameType
from typing import Any, Self

import keras
from keras.callbacks import Callback, EarlyStopping, History

from fashion_mnist.config import Config
from fashion_mnist.training.checkpoint import Checkpoint, Progress


def callbacks_of(config: Config, record: History, checkpoint: Checkpoint | None) -> list[Callback]:
    """The callbacks that a configuration asks for; those of a training that goes on keep what it has written."""
    trainer = config.trainer
    early_stopping = None
    callbacks: list[Callback] = [keras.callbacks.TerminateOnNaN()]
    if trainer.target_accuracy is not None:
        callbacks.append(StopAtAccuracy(trainer.target_accuracy))
    if trainer.patience is not None:
        early_stopping = EarlyStopping("val_loss", patience=trainer.patience, restore_best_weights=True)
        callbacks.append(early_stopping)
    if trainer.tensorboard:
        folder = config.folder("logs")
        if not (checkpoint and checkpoint.progress):
            shutil.rmtree(folder, ignore_errors=True)  # else TensorBoard would show two trainings as one
        callbacks.append(keras.callbacks.TensorBoard(str(folder), histogram_freq=1))
    if checkpoint:
        callbacks.append(WriteCheckpoint(checkpoint, record, early_stopping))
    return callbacks


class WriteCheckpoint(Callback):
    """Writes a checkpoint at each epoch's end, and puts the model into the state of one at the beginning.

    The memory of early stopping is part of it, and so is the record of all epochs; both come before it.
    """

    def __init__(self, checkpoint: Checkpoint, record: History, early_stopping: EarlyStopping | None) -> None:
        super().__init__()
        self.checkpoint, self.record, self.early_stopping = checkpoint, record, early_stopping

    def variables(self) -> list[keras.Variable]:
        """Everything that changes in training and outlasts an epoch."""
        model: Any = self.model
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        return [*model.weights, *model.optimizer.variables]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Early stopping has just forgotten everything."""
        self.start = time.perf_counter()
        if (progress := self.checkpoint.progress) is None:
            return
        self.start -= progress.seconds
        arrays = self.checkpoint.arrays
        for number, variable in enumerate(self.variables()):
            variable.assign(arrays[f"variable_{number}"])
        if self.early_stopping:
            vars(self.early_stopping).update(progress.memory)
            best = [arrays[f"best_{number}"] for number in range(len(arrays)) if f"best_{number}" in arrays]
            self.early_stopping.best_weights = best or None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        history = self.record.history
        if not math.isfinite(history["loss"][-1]):  # nothing to go on from
            return
        arrays = {f"variable_{number}": variable.numpy() for number, variable in enumerate(self.variables())}
        memory: dict[str, float] = {}
        if stopping := self.early_stopping:
            memory = {"wait": stopping.wait, "best": stopping.best or 0.0, "best_epoch": stopping.best_epoch}
            arrays |= {f"best_{number}": array for number, array in enumerate(stopping.best_weights or ())}
        ended = self.model.stop_training or epoch + 1 == self.params["epochs"]  # pyright: ignore
        seconds = time.perf_counter() - self.start
        self.checkpoint.write(Progress(epoch + 1, ended, seconds, history, memory), arrays)


class StopAtAccuracy(Callback):
    """Ends training after the epoch in which the accuracy on the training images reaches a target."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs and logs["accuracy"] >= self.target:
            self.model.stop_training = True  # pyright: ignore[reportOptionalMemberAccess]


class Interruptible(Callback):
    """Ends training between two steps when Ctrl-C or a scheduler's SIGTERM asks for it.

    A KeyboardInterrupt that surfaces in the middle of TensorFlow's own code can bring the whole process down before
    the run is marked as killed.
    """

    def __enter__(self) -> Self:
        self.asked = False
        self.previous: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # only a program's main thread may take note of signals
            self.previous = {kind: signal.signal(kind, self.ask) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.asked and kind is None:  # after the last step
            raise KeyboardInterrupt

    def ask(self, kind: int, frame: FrameType | None) -> None:
        self.asked = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.asked:
            raise KeyboardInterrupt
