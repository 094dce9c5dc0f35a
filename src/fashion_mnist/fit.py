"""Training: seeds, the compiled model, the loop over epochs."""

import contextlib
import math
import re
import signal
import sys
from types import FrameType
from typing import Any, Self

import keras
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fashion_mnist.config import Config
from fashion_mnist.data import Split
from fashion_mnist.errors import UserError

History = dict[str, list[float]]
EVALUATION_BATCH = 1000


def build(config: Config) -> keras.Model:
    """Builds and compiles the model with weights that depend on the seed alone. The one place that sets seeds.

    Raises:
        UserError: the model or the optimizer refuses its arguments.
    """
    keras.utils.clear_session()  # layer names count up through a process, and would differ between jobs of a sweep
    keras.utils.set_random_seed(config.seed)
    model = create(config.model, "model")
    optimizer = create(config.optimizer, "optimizer")
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def create(section: dict[str, Any], group: str) -> Any:
    """Calls the function that a config section names in `_target_` with the section's other keys.

    Raises:
        UserError: there is no such function, or it refuses its arguments.
    """
    try:
        return instantiate(OmegaConf.create(section), _convert_="all")
    except Exception as error:
        reason = " ".join(re.sub(r"\x1b\[\d+m", "", str(error.__cause__ or error)).split())
        reason = reason.partition("Arguments received")[0].strip()  # Keras goes on with a dump of the call
        raise UserError(f"{group}: {section.get('_target_')} refuses its arguments: {reason}") from error


def fit(model: keras.Model, training: Split, validation: Split, config: Config) -> History:
    """Trains, and returns every metric of every epoch.

    Args:
        model: as `build` returns it.
        training: images to learn from.
        validation: images to validate on after each epoch; may be empty.
        config: epochs and batch size.

    Raises:
        UserError: the training diverged.
    """
    with Interruptible() as interruptible:
        fitted = model.fit(
            training.images,
            training.labels,
            batch_size=config.trainer.batch_size,
            epochs=config.trainer.epochs,
            validation_data=tuple(validation) if len(validation.labels) else None,
            validation_batch_size=EVALUATION_BATCH,
            callbacks=[interruptible],
            # The bar that moves is for people; a log file gets one line an epoch.
            verbose=1 if sys.stdout.isatty() else 2,  # pyright: ignore[reportArgumentType]
        )
    history = {name: [float(value) for value in values] for name, values in fitted.history.items()}
    if not math.isfinite(history["loss"][-1]):
        first = next(epoch for epoch, loss in enumerate(history["loss"], start=1) if not math.isfinite(loss))
        raise UserError(
            f"training diverged: the loss is not a number from epoch {first} on; lower optimizer.learning_rate."
        )
    return history


class Interruptible(keras.callbacks.Callback):
    """Ends training between two steps when Ctrl-C or a scheduler's SIGTERM asks for it.

    A KeyboardInterrupt that surfaces in the middle of TensorFlow's own code can bring the whole process down before
    the run is marked as killed.
    """

    def __enter__(self) -> Self:
        """Takes note of signals from here on; only the main thread of a program may."""
        self.asked = False
        self.previous: dict[int, Any] = {}
        with contextlib.suppress(ValueError):
            self.previous = {kind: signal.signal(kind, self.ask) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Puts back the handlers that were there before."""
        for kind, handler in self.previous.items():
            signal.signal(kind, handler)

    def ask(self, kind: int, frame: FrameType | None) -> None:
        """Remembers that somebody wants an end."""
        self.asked = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends here, where nothing is half done."""
        if self.asked:
            raise KeyboardInterrupt
