"""What a killed training needs to go on: one file, written anew after each epoch, complete or not there.

It holds weights, optimizer, early stopping's memory and the history. There is no random state in it: the order of the
images and all random draws follow from the seed and the optimizer's count of steps (compiled.py).
"""

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from filelock import Timeout

from fashion_mnist.errors import UserError, say
from fashion_mnist.files import FOLDER, complete, digest_here, lock_of

Arrays = dict[str, np.ndarray]


@dataclass
class Progress:
    """How far a training is."""

    epoch: int  # how many are done
    ended: bool  # whether these are all, since training stopped by itself or by the number of epochs
    seconds: float  # that it has taken
    history: dict[str, list[float]]
    memory: dict[str, float]  # of early stopping: `wait`, `best`, `best_epoch`; empty without it


class Checkpoint:
    """The checkpoint of one training, which one process at a time may use.

    Args:
        file: where it lies; the same for whatever is the same training.
        resume: whether to go on from it, as in `trainer.resume`.
    """

    def __init__(self, file: Path, resume: str) -> None:
        self.file, self.resume = file, resume
        self.progress: Progress | None = None
        self.arrays: Arrays = {}
        self.lock = lock_of("checkpoint", str(self.file.absolute()))
        self.ours = False
        self.origin: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Stands for this checkpoint in this place, wherever runs are recorded."""
        return digest_here(self.file.name)

    def __enter__(self) -> Self:
        """Takes possession, and refuses what cannot go on but must.

        Raises:
            UserError: `trainer.resume=required`, and there is no checkpoint.
        """
        if self.resume == "required" and not self.file.is_file():
            raise UserError(
                f"there is no checkpoint {self.file} to go on from; trainer.resume=auto starts anew without one."
            )
        try:
            self.lock.acquire(timeout=0)
            self.ours = True
        except Timeout:
            if self.resume == "required":
                raise UserError(f"another process is just using {self.file}; wait for its end.") from None
            say("Another process trains the same at this moment; this one keeps no checkpoint.")
        return self

    def __exit__(self, *_: object) -> None:
        """Gives it back."""
        self.lock.release()

    def read(self, origin: dict[str, str]) -> Progress | None:
        """What there is to go on from, if that is wanted and gives what an undisturbed training gives.

        Args:
            origin: what must be the same as where the checkpoint was made.

        Raises:
            UserError: `trainer.resume=required`, and the checkpoint is of no use.
        """
        self.origin = origin
        if not self.ours or self.resume == "never" or not self.file.is_file():
            return None
        try:
            with zipfile.ZipFile(self.file) as archive:
                if damaged := archive.testzip():  # NumPy notices some damage only after it has taken it for numbers
                    raise ValueError(damaged)
            with np.load(self.file, allow_pickle=False) as content:
                about = json.loads(content["about"].tobytes())
                arrays = {name: content[name] for name in content.files if name != "about"}
            made_by = about.pop("origin")
            progress = Progress(**about)
        except Exception:  # damage comes up as anything, from NotImplementedError to struct.error
            return self.refuse("is damaged")
        if differences := [key for key, here in self.origin.items() if here != made_by.get(key)]:
            kinds = " and ".join(f"other {key} ({made_by.get(key)}, here {self.origin[key]})" for key in differences)
            return self.refuse(f"was made with {kinds}")
        self.progress, self.arrays = progress, arrays
        return progress

    def refuse(self, reason: str) -> None:
        """Says why the checkpoint is of no use."""
        if self.resume == "required":
            raise UserError(f"{self.file} {reason}; trainer.resume=never starts anew.")
        say(f"{self.file} {reason}: training starts anew.")

    def write(self, progress: Progress, arrays: Arrays) -> None:
        """Replaces the checkpoint; the one before stays until this one is complete.

        Raises:
            UserError: the disk is full, or cannot be written.
        """
        if not self.ours:
            return
        about = json.dumps({**asdict(progress), "origin": self.origin}).encode()
        # A crash of the whole machine can leave a damaged file, which is recognised, and costs less than a wait for the
        # disk after each epoch.
        with complete(self.file) as partial:
            np.savez(partial, allow_pickle=False, about=np.frombuffer(about, np.uint8), **arrays)
        self.progress = progress

    def remove(self) -> None:
        """Removes what is not needed any more."""
        if self.ours:
            for file in (self.file, *FOLDER.glob(f".*.{self.file.name}")):
                file.unlink(missing_ok=True)
