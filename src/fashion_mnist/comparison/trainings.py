"""Trainings as a comparison needs them: what each got right, and what all of them say of each test image."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fashion_mnist.data.dataset import CLASS_NAMES, title_of
from fashion_mnist.errors import UserError, progress
from fashion_mnist.evaluation.metrics import confusion
from fashion_mnist.evaluation.predictions import Predictions

Curve = list[float]


class LeftOut(NamedTuple):
    """A run that is not compared, and why."""

    run_id: str
    name: str
    reason: str


@dataclass
class Training:
    """A finished training with what its model says of the test images, boiled down to a byte each."""

    name: str
    variant: str
    tags: dict[str, str]
    metrics: dict[str, float]
    predictions: Callable[[], Predictions]  # reads them
    curves: Callable[[], dict[str, Curve]]  # reads `val_accuracy` and `val_loss`, a value for each epoch
    seed: str = ""  # this and the next three: nothing where it comes from the pipeline
    params: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    experiment: str = ""
    right: np.ndarray = field(default_factory=lambda: np.empty(0, bool))  # which test images it gets right, (images,)
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, int))  # the confusion matrix
    class_names: Sequence[str] = CLASS_NAMES


class Tested(NamedTuple):
    """What all trainings were tested on, and how it went on average."""

    dataset: str
    digest: str  # "" where it comes from the pipeline
    labels: np.ndarray  # (n,)
    of_truth: np.ndarray  # the truth's probability, summed over the trainings, (n,)
    votes: np.ndarray  # how many trainings took an image for each class, (n, classes)
    class_names: Sequence[str] = CLASS_NAMES

    @property
    def title(self) -> str:
        """The dataset's name for titles."""
        return title_of(self.dataset)


def with_predictions(
    found: Sequence[Training], left_out: list[LeftOut]
) -> tuple[list[Training], list[LeftOut], Tested]:
    """Adds to each training what its model says of the test images; one at a time, so that memory does not grow.

    Of those with the same configuration and seed, the first (newest) that can be read is taken; `left_out` is added to.
    """
    trainings: list[Training] = []
    tested: Tested | None = None
    seen: set[tuple] = set()
    for training in progress(found, "reading runs"):
        key = (training.variant, *training.params.items(), training.seed)
        try:
            if key in seen:
                raise UserError("a newer run has the same configuration and seed")
            labels, predicted, probabilities = training.predictions()
            if tested is None:
                dataset, digest = training.tags["dataset"], training.tags.get("dataset_digest", "")
                empty = np.zeros(len(labels)), np.zeros(probabilities.shape, int)
                tested = Tested(dataset, digest, labels, *empty, training.class_names)
            if not np.array_equal(labels, tested.labels) or probabilities.shape != tested.votes.shape:
                raise UserError("it was tested on other images")
        except UserError as error:
            left_out.append(LeftOut(training.run_id, training.name, str(error)))
            continue
        seen.add(key)
        rows = np.arange(len(labels))
        tested.of_truth[:] += probabilities[rows, labels]
        tested.votes[rows, predicted] += 1
        training.right = predicted == labels
        training.counts = confusion(labels, predicted, len(tested.votes[0]))
        trainings.append(training)
    if tested is None:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in Counter(each[2] for each in left_out).items())
        raise UserError(
            f"there is nothing to compare{f' ({reasons})' if reasons else ''}; train something first, such as: "
            "python -m fashion_mnist -m model=mlp,cnn seed=0,1,2"
        )
    return trainings, left_out, tested
