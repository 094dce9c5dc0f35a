"""Is a difference in accuracy real? Two things were drawn at random: the test images and the seeds of the trainings.

All variants see the same test images, so differences are taken image by image. What a run gets right is a row of
booleans; the rows of a variant, one for each seed, are an array (n, images).

The variance of a mean difference has three parts. Images: some favour one variant, whatever the seed. Seeds: some
trainings end better, whatever the images. And chance flips of single images from one training to the next, which show
in both; a bootstrap over images and seeds would count them twice, and seeds with n in place of n - 1 (Owen, The
pigeonhole bootstrap, https://arxiv.org/abs/0712.1111). So the parts are estimated one by one. Few seeds can tie by
chance though single images flip, so the standard deviation over n seeds counts as at least 1/n of what the flips alone
imply; all of it would hide many a true difference. Few seeds also make the sum of the parts itself uncertain, so
interval and p are those of Student's t, with degrees of freedom after Welch and Satterthwaite. Where images are no part
of it, and no seeds tie, that is Welch's t-test over seeds, which with three of them is on the safe side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, proportion

LEVEL = 0.05  # probability of seeing a difference where there is none
POWER = 0.8
MOST_SEEDS = 50  # that anybody would train
DETECTABLE = (0.002, 0.005, 0.01, 0.02, 0.05)  # differences in accuracy for which the number of seeds is looked up


class Spread(NamedTuple):
    """The parts of the variance of a mean accuracy, or of the difference of two."""

    images: float  # of the estimate, through the choice of test images
    seeds: tuple[float, ...]  # of a single training's accuracy, for each variant
    flips: tuple[float, ...]  # the same, as far as single images imply it
    trainings: tuple[int, ...]  # of each variant
    tested: int  # images

    @property
    def variance(self) -> float:
        """Of the estimate."""
        return self.images + sum(self._of_seeds())

    @property
    def margin(self) -> float:
        """Half the 95 % interval of the estimate."""
        return float(stats.t.ppf(1 - LEVEL / 2, self.degrees)) * self.variance**0.5

    @property
    def degrees(self) -> float:
        """Of freedom, after Welch and Satterthwaite."""
        squares = [self.images**2 / (self.tested - 1)]
        squares += [part**2 / (n - 1) for part, n in zip(self._of_seeds(), self.trainings, strict=True)]
        return self.variance**2 / sum(squares) if sum(squares) > 0 else 1.0

    def _of_seeds(self) -> list[float]:
        return [part / n for part, n in zip(self.seeds, self.trainings, strict=True)]


class Difference(NamedTuple):
    """A difference in accuracy, as a share of the images."""

    value: float
    interval: tuple[float, float] | None  # 95 %; None between two single trainings
    p: float  # probability of a difference as large where there is none


def spread(*groups: np.ndarray) -> Spread:
    """Splits the variance of a variant's mean accuracy, or of the difference of two; two trainings or more each."""
    contrast = groups[0].mean(axis=0) - sum(group.mean(axis=0) for group in groups[1:])
    sizes, images = [len(group) for group in groups], len(contrast)
    flips = [float(group.var(axis=0, ddof=1).mean()) / images for group in groups]
    seen = [float(group.mean(axis=1).var(ddof=1)) for group in groups]
    of_flips = sum(flip / n for flip, n in zip(flips, sizes, strict=True))
    return Spread(
        images=max(float(contrast.var(ddof=1)) / images - of_flips, 0.0),
        seeds=tuple(max(each, flip / n**2) for each, flip, n in zip(seen, flips, sizes, strict=True)),
        flips=tuple(flips),
        trainings=tuple(sizes),
        tested=images,
    )


def accuracy_interval(right: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a variant's accuracy over seeds and test images; of a single training, over images alone."""
    accuracy = float(right.mean())
    if len(right) == 1:
        low, high = proportion.proportion_confint(int(right.sum()), right.size, LEVEL, "wilson")
        return float(low), float(high)  # pyright: ignore[reportArgumentType]
    margin = spread(right).margin
    return max(accuracy - margin, 0.0), min(accuracy + margin, 1.0)


def difference(right: np.ndarray, other: np.ndarray) -> Difference:
    """How much better the first variant is than the other; two trainings or more each."""
    value = float(right.mean() - other.mean())
    parts = spread(right, other)
    if parts.variance == 0:  # no training differs from another in anything
        return Difference(value, (value, value), float(value == 0))
    p = 2 * float(stats.t.sf(abs(value) / parts.variance**0.5, parts.degrees))
    return Difference(value, (value - parts.margin, value + parts.margin), p)


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """P of McNemar's test for two single trainings on the same images: bool (images,) each.

    Exact where they differ on fewer than 25 images. It asks whether these two trained models differ, not whether the
    variants do: that takes several seeds.
    """
    one, two = (right & ~other).sum(), (other & ~right).sum()
    test = contingency_tables.mcnemar([[0, one], [two, 0]], exact=one + two < 25)  # where they agree plays no part
    return float(test.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def holm(ps: Sequence[float]) -> list[float]:
    """The p values, corrected for being several (Holm, 1979)."""
    if not ps:
        return []
    return np.asarray(multitest.multipletests(ps, alpha=LEVEL, method="holm")[1]).tolist()


def power(parts: Spread, true_difference: float, seeds: int, level: float = LEVEL) -> float:
    """The probability of showing a true difference with so many seeds of each variant, at least 2.

    The parts of the variance are as trainings so far have shown them, seeds differing by no less than single images
    imply; p shows a difference if it is below `level`.
    """
    expected = tuple(map(max, parts.seeds, parts.flips))  # seeds that tie by chance will not go on to
    planned = parts._replace(seeds=expected, trainings=(seeds,) * len(expected))
    if planned.variance == 0:
        return float(true_difference > 0)
    critical = stats.t.ppf(1 - level / 2, planned.degrees)
    shift = true_difference / planned.variance**0.5
    wrong_sign = stats.nct.cdf(-critical, planned.degrees, shift)  # SciPy gives NaN where it is all but zero
    return float(stats.nct.sf(critical, planned.degrees, shift) + np.nan_to_num(wrong_sign))


def seeds_needed(parts: Spread, comparisons: int = 1) -> tuple[int, float] | None:
    """How many seeds of each variant show the smallest difference of `DETECTABLE` that 50 can show, and which it is.

    With 80 % power; None where 50 seeds would not do for any. Comparisons that are made at the same time share the
    level, which is the worst that Holm's correction asks for.
    """
    level = LEVEL / comparisons
    for target in DETECTABLE:
        if power(parts, target, MOST_SEEDS, level) >= POWER:
            return next(n for n in range(2, MOST_SEEDS + 1) if power(parts, target, n, level) >= POWER), target
    return None
