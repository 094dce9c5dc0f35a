"""Variants compared: trainings that differ only in their seed form a group; each group is set against a baseline."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fashion_mnist.comparison import significance
from fashion_mnist.comparison.significance import LEVEL, Difference, mcnemar
from fashion_mnist.comparison.trainings import LeftOut, Tested, Training
from fashion_mnist.errors import UserError


@dataclass(eq=False)
class Group:
    """The trainings of one configuration, one for each seed."""

    name: str
    params: dict[str, str]  # those that differ between groups
    apart: list[str]  # of them, those that tell it from groups of the same variant
    trainings: list[Training]

    @property
    def variant(self) -> str:
        return self.trainings[0].variant

    @property
    def n(self) -> int:
        return len(self.trainings)

    @property
    def right(self) -> np.ndarray:
        """Which test images each training gets right, bool (n, images)."""
        return np.array([training.right for training in self.trainings])

    @cached_property
    def recall(self) -> np.ndarray:
        """The share of each class that is recognised, mean over the trainings, (classes,)."""
        return self.counts.diagonal() / np.maximum(self.counts.sum(axis=1), 1)

    @cached_property
    def counts(self) -> np.ndarray:
        """The confusion matrix, mean over the trainings, float (classes, classes)."""
        return np.mean([training.counts for training in self.trainings], axis=0)

    @cached_property
    def interval(self) -> tuple[float, float]:
        return significance.accuracy_interval(self.right)

    def values(self, metric: str) -> list[float]:
        return [training.metrics[metric] for training in self.trainings if metric in training.metrics]

    def mean(self, metric: str) -> float | None:
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
        return statistics.mean(self.values("test_accuracy"))

    @property
    def accuracy_in_words(self) -> str:
        """Mean test accuracy, and its sample standard deviation where there are several trainings."""
        deviation = self.deviation("test_accuracy")
        return f"{self.accuracy:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


@dataclass(frozen=True)
class Verdict:
    """What can be said of a group beside the baseline."""

    difference: Difference
    p: float  # Holm-corrected
    mcnemar: list[float]  # Holm-corrected p, of each pair of trainings with the same seed
    sentence: str

    @property
    def shown(self) -> bool:
        return self.p < LEVEL

    @property
    def pairs(self) -> str:
        differing = sum(p < LEVEL for p in self.mcnemar)
        tested = f"McNemar: {differing} of {len(self.mcnemar)} pairs differ."
        return tested if self.mcnemar else "No two of these trainings have the same seed."


@dataclass(frozen=True)
class Step:
    """A group beside the one of the variant that its own builds on."""

    group: Group
    parent: Group
    technique: str
    verdict: Verdict  # Holm-corrected for the number of steps


@dataclass
class Comparison:
    """Everything that a report tells."""

    tested: Tested
    groups: list[Group]  # best accuracy first
    baseline: Group
    verdicts: dict[str, Verdict]  # by the group's name; of all groups but the baseline
    steps: list[Step]
    left_out: list[LeftOut]

    @property
    def trainings(self) -> list[Training]:
        return [training for group in self.groups for training in group.trainings]

    @property
    def columns(self) -> list[str]:
        """The parameters that tell groups of the same variant apart."""
        return list(dict.fromkeys(key for group in self.groups for key in group.apart))


def compare(
    trainings: Sequence[Training], left_out: list[LeftOut], tested: Tested, baseline: str | None, steps: dict[str, dict]
) -> Comparison:
    """Groups trainings on the same data, and says of each group whether it is better than the baseline, and its parent.

    The baseline is the name of a group; None for `mlp` where there is one, else for the least accurate.
    """
    groups = sorted(grouped(trainings), key=lambda group: -group.accuracy)
    named = {group.name: group for group in groups}
    if baseline is not None and baseline not in named:
        raise UserError(f"there is no baseline '{baseline}' among what is compared; choose one of {', '.join(named)}.")
    chosen = named[baseline] if baseline else named.get("mlp", groups[-1])
    verdicts = judge([(group, chosen) for group in groups if group is not chosen])
    return Comparison(tested, groups, chosen, verdicts, beside_parents(groups, steps), left_out)


def grouped(trainings: Sequence[Training]) -> list[Group]:
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
        result.append(Group(" ".join(words), params, apart, each))
    return result


def beside_parents(groups: Sequence[Group], steps: dict[str, dict]) -> list[Step]:
    """Sets the groups of each variant beside those of its parent, in the order of `steps`.

    Two groups are a pair if they agree in every parameter that tells either of them from others of its variant. So the
    only groups of two variants are one; of several, each finds the one with as many epochs, say, or none.
    """
    pairs = [
        (group, parent)
        for variant, step in steps.items()
        for group in groups
        for parent in groups
        if (group.variant, parent.variant) == (variant, step["parent"]) and group is not parent
        if all(group.params.get(key) == parent.params.get(key) for key in (*group.apart, *parent.apart))
    ]
    verdicts = judge(pairs)
    return [Step(*pair, steps[pair[0].variant]["technique"], verdicts[pair[0].name]) for pair in pairs]


def judge(pairs: Sequence[tuple[Group, Group]]) -> dict[str, Verdict]:
    """What can be said of the first of each two beside the second, by the name of the first."""
    found = [difference_between(*pair) for pair in pairs]
    corrected = significance.holm([each.p for each in found])
    seeds = [same_seed(*pair) for pair in pairs]
    flat = iter(significance.holm([mcnemar(one.right, other.right) for each in seeds for one, other in each]))
    return {
        pair[0].name: Verdict(each, p, [next(flat) for _ in of_pair], sentence(*pair, each, p, len(pairs)))
        for pair, each, p, of_pair in zip(pairs, found, corrected, seeds, strict=True)
    }


def difference_between(group: Group, baseline: Group) -> Difference:
    """Over seeds and test images; where one of the two was trained once, of two trainings over test images alone."""
    if min(group.n, baseline.n) > 1:
        return significance.difference(group.right, baseline.right)
    one, other = (training.right for training in one_of_each(group, baseline))
    return Difference(float(one.mean() - other.mean()), None, mcnemar(one, other))


def same_seed(group: Group, baseline: Group) -> list[tuple[Training, Training]]:
    by_seed = {training.seed: training for training in baseline.trainings}
    return [(training, by_seed[training.seed]) for training in group.trainings if training.seed in by_seed]


def one_of_each(group: Group, baseline: Group) -> tuple[Training, Training]:
    """A training of each, with the same seed where they have one in common."""
    return next(iter(same_seed(group, baseline)), (group.trainings[0], baseline.trainings[0]))


def sentence(group: Group, baseline: Group, difference: Difference, p: float, comparisons: int) -> str:
    """The verdict in words: p is Holm-corrected for the comparisons that are made at the same time."""
    points = f"{100 * abs(difference.value):.1f} points"
    if difference.interval is None:
        one, other = (
            f"`{each.name}`" + (f" with seed {training.seed}" if training.seed else "")
            for each, training in zip((group, baseline), one_of_each(group, baseline), strict=True)
        )
        if p < LEVEL:
            than = "more" if difference.value > 0 else "less"
            return f"This training of {one} is {points} {than} accurate than this one of {other}."
        return f"No difference shown between these trainings of {one} and {other} ({points})."
    if p < LEVEL:
        better, worse = (group, baseline) if difference.value > 0 else (baseline, group)
        low, high = (f"{100 * end:.1f}" for end in sorted(abs(end) for end in difference.interval))
        return f"`{better.name}` beats `{worse.name}` by {points} (95 % {low} to {high})."
    n = f"n = {group.n}" if group.n == baseline.n else f"n = {group.n} and {baseline.n}"
    value, low, high = (f"{100 * each:+z.1f}" for each in (difference.value, *difference.interval))
    more = f"more than {significance.MOST_SEEDS} seeds would be needed"
    if needed := significance.seeds_needed(significance.spread(group.right, baseline.right), comparisons):
        more = f"{needed[0]} seeds each would show {100 * needed[1]:.1f} points with 80 % power"
    return (
        f"`{group.name}` and `{baseline.name}`: no difference shown with {n} "
        f"({value} points, 95 % {low} to {high}, corrected p = {p:.2f}); {more}."
    )
