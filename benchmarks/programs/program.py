"""What the programs of epoch.py share: what they are told, and the one line they print. Needs NumPy alone."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

BATCH = 32


@dataclass(frozen=True)
class Task:
    """What a program is told."""

    name: str  # which of a script's programs
    data: Path  # folder with the dataset, prepared
    epochs: int  # timed ones; another one comes first, which compiles and fills caches
    steps: int  # of an epoch, each with a batch of `BATCH` images

    @property
    def images(self) -> np.ndarray:
        """The images of an epoch, uint8 (n, 28, 28)."""
        return np.load(self.data / "train_images.npy")[: self.steps * BATCH]

    @property
    def labels(self) -> np.ndarray:
        """Their labels, uint8 (n,)."""
        return np.load(self.data / "train_labels.npy")[: self.steps * BATCH]


class Learned(NamedTuple):
    """What Keras reports of an epoch: means over its images, taken while the weights change."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What a program found out."""

    seconds: list[float]  # of each timed epoch
    learned: Learned | None  # in the last epoch; None where nothing is learned
    threads: int | None = None  # where the library tells


def repeat(task: Task, epoch: Callable[[], Learned | None], threads: int | None = None) -> Outcome:
    """Times a function that does an epoch, after a call that does not count."""
    learned, seconds = epoch(), []
    for _ in range(task.epochs):
        start = time.perf_counter()
        learned = epoch()
        seconds.append(time.perf_counter() - start)
    return Outcome(seconds, learned, threads)


def main(programs: Mapping[str, Callable[[Task], Outcome]], packages: Sequence[str]) -> None:
    """Runs the program that the command line names, and prints a line of JSON with its outcome.

    Args:
        programs: those of the script.
        packages: whose versions to tell.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(programs))
    parser.add_argument("data", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("steps", type=int)
    task = Task(**vars(parser.parse_args()))
    outcome = programs[task.name](task)
    learned = outcome.learned._asdict() if outcome.learned else None
    versions = {package: version(package) for package in packages}
    print(json.dumps({**asdict(outcome), "learned": learned, "versions": versions}))
