"""Variants compared: trainings that differ only in their seed form a group; each group is set against a baseline."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fashion_mnist.comparison import significance
from fashion_mnist.comparison.significance import LEVEL, Difference
from fashion_mnist.comparison.trainings import LeftOut, Tested, Training
from fashion_mnist.errors import UserError


@dataclass(eq=False)
class Group:
    """The trainings of one configuration, one for each seed."""

    name: str
    params: dict[str, str]  # those that differ between groups
    apart: list[str]  # of them, those that tell it from groups of the same variant
    trainings: list[Training]
    images: int

    @property
    def n(self) -> int:
        """How many trainings."""
        return len(self.trainings)

    @property
    def right(self) -> np.ndarray:
        """Which test images each training gets right, bool (n, images)."""
        return np.array([training.right(self.images) for training in self.trainings])

    @cached_property
    def recall(self) -> np.ndarray:
        """The share of each class that is recognised, mean over the trainings, (classes,)."""
        counts = self.counts
        return counts.diagonal() / np.maximum(counts.sum(axis=1), 1)

    @cached_property
    def counts(self) -> np.ndarray:
        """The confusion matrix, mean over the trainings, float (classes, classes)."""
        return np.mean([training.counts for training in self.trainings], axis=0)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return significance.accuracy_interval(self.right)

    def values(self, metric: str) -> list[float]:
        """A metric of each training that has it."""
        return [training.metrics[metric] for training in self.trainings if metric in training.metrics]

    def mean(self, metric: str) -> float | None:
        """Mean over the trainings."""
        values = self.values(metric)
        return statistics.mean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the trainings; nothing of a single one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def cost(self, name: str) -> float | None:
        """The median over the trainings, since times have outliers."""
        values = self.values(f"system/{name}")
        return statistics.median(values) if values else None

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return statistics.mean(self.values("test_accuracy"))


@dataclass(frozen=True)
class Verdict:
    """What can be said of a group beside the baseline."""

    name: str
    baseline: str
    difference: float
    interval: tuple[float, float] | None  # 95 %; None where a group has one training only
    p: float  # Holm-corrected; of McNemar's test where there is no interval
    mcnemar: tuple[float, ...]  # Holm-corrected, of each pair of trainings with the same seed
    sentence: str

    @property
    def shown(self) -> bool:
        """Whether there is a difference beyond chance."""
        return self.p < LEVEL

    @property
    def pairs(self) -> str:
        """What McNemar's tests say of the pairs of trainings with the same seed."""
        differing = sum(p < LEVEL for p in self.mcnemar)
        return f"McNemar: {differing} of {len(self.mcnemar)} pairs differ."


@dataclass
class Comparison:
    """Everything that a report tells."""

    tested: Tested
    groups: list[Group]  # best accuracy first
    baseline: Group
    verdicts: dict[str, Verdict]  # by the group's name; of all groups but the baseline
    left_out: list[LeftOut]

    @property
    def trainings(self) -> list[Training]:
        """All that are compared."""
        return [training for group in self.groups for training in group.trainings]

    @property
    def columns(self) -> list[str]:
        """The parameters that tell groups of the same variant apart."""
        return list(dict.fromkeys(key for group in self.groups for key in group.apart))


def variant(group: Group) -> str:
    """The variant of a group's trainings."""
    return group.trainings[0].variant


def compare(trainings: Sequence[Training], left_out: list[LeftOut], tested: Tested, baseline: str | None) -> Comparison:
    """Groups trainings, and says of each group whether it is better than the baseline.

    Args:
        trainings: on the same data.
        left_out: for the report.
        tested: on which images.
        baseline: the name of a group; None for `mlp` where there is one, else for the least accurate.

    Raises:
        UserError: there is no such baseline.
    """
    groups = sorted(grouped(trainings, len(tested.labels)), key=lambda group: -group.accuracy)
    by_name = {group.name: group for group in groups}
    if baseline is not None and baseline not in by_name:
        raise UserError(
            f"there is no baseline '{baseline}' among what is compared; choose one of {', '.join(by_name)}."
        )
    chosen = by_name[baseline] if baseline else by_name.get("mlp", groups[-1])
    others = [group for group in groups if group is not chosen]
    return Comparison(tested, groups, chosen, {each.name: each for each in judge(chosen, others)}, left_out)


def grouped(trainings: Sequence[Training], images: int) -> list[Group]:
    """Groups of what differs only in its seed, named after what differs."""
    groups: dict[tuple, list[Training]] = {}
    for training in trainings:
        groups.setdefault((training.variant, *training.params.items()), []).append(training)
    members = [sorted(each, key=lambda training: (len(training.seed), training.seed)) for each in groups.values()]
    keys = sorted({key for each in members for key in each[0].params})
    differing = [key for key in keys if len({each[0].params.get(key) for each in members}) > 1]
    result = []
    for each in members:
        first = each[0]
        siblings = [other[0].params for other in members if other[0].variant == first.variant]
        apart = [key for key in differing if len({params.get(key) for params in siblings}) > 1]
        # What only some of them have, such as SGD's momentum, mostly goes with something that all of them have.
        common = [key for key in apart if all(key in params for params in siblings)]
        if len({tuple(params[key] for key in common) for params in siblings}) == len(siblings):
            apart = common
        words = [first.variant, *(f"{key.rpartition('.')[2]}={first.params.get(key, 'unset')}" for key in apart)]
        params = {key: first.params[key] for key in differing if key in first.params}
        result.append(Group(" ".join(words), params, apart, each, images))
    return result


def judge(baseline: Group, others: Sequence[Group]) -> list[Verdict]:
    """A verdict on each group, corrected for their number."""
    several = [group for group in others if min(group.n, baseline.n) > 1]
    resampled = significance.resampled_accuracies([group.right for group in (baseline, *several) if several])
    singles = {group.name: same_seed(group, baseline) for group in others if group not in several}
    found = []
    for group in others:
        if group in several:
            drawn = resampled[:, several.index(group) + 1] - resampled[:, 0]
            found.append(significance.difference(group.right, baseline.right, drawn))
        else:
            one, other = (training.right(group.images) for training in singles[group.name])
            value = float(one.mean() - other.mean())
            found.append(Difference(value, 0, 0, significance.mcnemar(one, other)))
    corrected = significance.holm([each.p for each in found])
    pairs = [pair_tests(group, baseline) for group in others]
    flat = iter(significance.holm([p for each in pairs for p in each]))
    verdicts = []
    for group, each, p, tests in zip(others, found, corrected, pairs, strict=True):
        mcnemar = tuple(next(flat) for _ in tests)
        if group in several:
            needed = significance.seeds_needed(significance.spread(group.right, baseline.right), len(others))
            words, interval = sentence(group, baseline, each, p, needed), (each.low, each.high)
        else:
            words, interval = of_single(group, baseline, singles[group.name], each, p), None
        verdicts.append(Verdict(group.name, baseline.name, each.value, interval, p, mcnemar, words))
    return verdicts


def same_seed(group: Group, baseline: Group) -> tuple[Training, Training]:
    """A training of each, with the same seed where they have one in common."""
    by_seed = {training.seed: training for training in baseline.trainings}
    common = [training for training in group.trainings if training.seed in by_seed]
    one = (common or group.trainings)[0]
    return one, by_seed.get(one.seed, baseline.trainings[0])


def pair_tests(group: Group, baseline: Group) -> list[float]:
    """McNemar's test for each pair of trainings with the same seed."""
    by_seed = {training.seed: training for training in baseline.trainings}
    return [
        significance.mcnemar(training.right(group.images), by_seed[training.seed].right(group.images))
        for training in group.trainings
        if training.seed in by_seed
    ]


def sentence(group: Group, baseline: Group, difference: Difference, p: float, needed: tuple[int, float] | None) -> str:
    """The verdict in words, from several seeds."""
    if p < LEVEL:
        better, worse = (group, baseline) if difference.value > 0 else (baseline, group)
        sign = 1 if difference.value > 0 else -1
        low, high = (f"{100 * end:.1f}" for end in sorted((sign * difference.low, sign * difference.high)))
        return (
            f"`{better.name}` beats `{worse.name}` by {100 * abs(difference.value):.1f} points (95 % {low} to {high})."
        )
    n = f"n = {group.n}" if group.n == baseline.n else f"n = {group.n} and {baseline.n}"
    value, low, high = (f"{100 * each:+.1f}".replace("-0.0", "+0.0") for each in difference[:3])
    more = f"more than {significance.MOST_SEEDS} seeds would be needed"
    if needed:
        more = f"{needed[0]} seeds each would show {100 * needed[1]:.1f} points with 80 % power"
    return (
        f"`{group.name}` and `{baseline.name}`: no difference shown with {n} "
        f"({value} points, 95 % {low} to {high}, corrected p = {p:.2f}); {more}."
    )


def of_single(
    group: Group, baseline: Group, trainings: tuple[Training, Training], difference: Difference, p: float
) -> str:
    """The verdict in words where one of the two was trained once."""
    points = f"{100 * abs(difference.value):.1f} points"
    one, other = (
        f"`{each.name}`" + (f" with seed {training.seed}" if training.seed else "")
        for each, training in zip((group, baseline), trainings, strict=True)
    )
    if p < LEVEL:
        than = "more" if difference.value > 0 else "less"
        return f"This training of {one} is {points} {than} accurate than this one of {other}."
    return f"No difference shown between these trainings of {one} and {other} ({points})."
