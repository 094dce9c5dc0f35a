"""Ctrl-C and a scheduler's SIGTERM during training."""

import contextlib
import signal
from types import FrameType
from typing import Any, Self

import keras


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
