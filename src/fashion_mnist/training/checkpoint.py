"""What a killed training needs to go on: one file, written anew after each epoch, complete or not there.

It holds weights, optimizer, early stopping's memory and the history. There is no random state in it: the order of the
images and all random draws follow from the seed and the optimizer's count of steps (compiled.py).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from filelock import Timeout

from fashion_mnist.data.dataset import Arrays
from fashion_mnist.errors import UserError, say
from fashion_mnist.files import FOLDER, complete, digest_here, lock_of


@dataclass
class Progress:
    epoch: int  # how many are done
    ended: bool  # whether these are all, since training stopped by itself or by the number of epochs
    seconds: float  # that it has taken
    history: dict[str, list[float]]
    memory: dict[str, float]  # of early stopping: `wait`, `best`, `best_epoch`; empty without it


class Checkpoint:
    """The checkpoint of one training, which one process at a time may use; `resume` is `trainer.resume`."""

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
        if self.resume == "required" and not self.file.is_file():
            raise UserError(f"there is no checkpoint {self.file} to go on from; trainer.resume=auto starts anew.")
        try:
            self.lock.acquire(timeout=0)
            self.ours = True
        except Timeout:
            if self.resume == "required":
                raise UserError(f"another process is just using {self.file}; wait for its end.") from None
            say("Another process trains the same at this moment; this one keeps no checkpoint.")
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def read(self, origin: dict[str, str]) -> None:
        """Reads what there is to go on from, if that is wanted and was made by the same `origin`.

        Only then does it give what an undisturbed training gives.
        """
        self.origin = origin
        if not self.ours or self.resume == "never" or not self.file.is_file():
            return
        try:
            with np.load(self.file, allow_pickle=False) as content:
                if damaged := content.zip.testzip():  # NumPy notices some only after it has taken it for numbers
                    raise ValueError(damaged)
                arrays = dict(content)
            about = json.loads(arrays.pop("about").tobytes())
            made_by = about.pop("origin")
            progress = Progress(**about)
        except Exception:  # damage comes up as anything, from NotImplementedError to struct.error
            self.refuse("is damaged")
            return
        if differences := [key for key, here in self.origin.items() if here != made_by.get(key)]:
            kinds = " and ".join(f"other {key} ({made_by.get(key)}, here {self.origin[key]})" for key in differences)
            self.refuse(f"was made with {kinds}")
        else:
            self.progress, self.arrays = progress, arrays

    def refuse(self, reason: str) -> None:
        if self.resume == "required":
            raise UserError(f"{self.file} {reason}; trainer.resume=never starts anew.")
        say(f"{self.file} {reason}: training starts anew.")

    def write(self, progress: Progress, arrays: Arrays) -> None:
        """The checkpoint before stays until this one is complete."""
        if not self.ours:
            return
        about = json.dumps({**asdict(progress), "origin": self.origin}).encode()
        # A crash of the whole machine can leave a damaged file, which is recognised, and costs less than a wait for the
        # disk after each epoch.
        with complete(self.file) as partial:
            np.savez(partial, allow_pickle=False, about=np.frombuffer(about, np.uint8), **arrays)
        self.progress = progress

    def remove(self) -> None:
        if self.ours:
            for file in (self.file, *FOLDER.glob(f".*.{self.file.name}")):
                file.unlink(missing_ok=True)
