"""The statistics against published worked examples, against other libraries, and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from fashion_mnist.comparison.significance import (
    DETECTABLE,
    MOST_SEEDS,
    Spread,
    accuracy_interval,
    difference,
    holm,
    mcnemar,
    power,
    seeds_needed,
    spread,
)


def trainings(random: np.random.Generator, seeds: int, hardness: np.ndarray, spread_of_seeds: float) -> np.ndarray:
    """What trainings get right: images differ in hardness, trainings in skill, and single images flip by chance."""
    skill = random.normal(0, spread_of_seeds, size=(seeds, 1))
    return random.random((seeds, len(hardness))) < stats.norm.cdf(hardness + skill)


def test_mcnemar_gives_the_published_example() -> None:
    # Agresti, Categorical Data Analysis, 1990, section 10.1: approval of a prime minister, asked twice.
    # 794 approved twice, 150 only at first, 86 only later, 570 never; with Edwards's correction 63²/236.
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    later = np.repeat([True, False, True, False], [794, 150, 86, 570])
    assert mcnemar(first, later) == pytest.approx(stats.chi2.sf(63**2 / 236, 1))
    assert mcnemar(first, later) < 1e-4


def test_mcnemar_is_exact_for_few_differences() -> None:
    first = np.repeat([True, False], [9, 1])  # nine against one: a coin thrown ten times
    assert mcnemar(first, ~first) == pytest.approx(stats.binomtest(1, 10).pvalue)
    assert mcnemar(first, first) == 1


def test_holm_gives_the_published_example() -> None:
    # https://en.wikipedia.org/wiki/Holm-Bonferroni_method, section Example
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_without_variance_between_images_it_is_welchs_test() -> None:
    # Every training gets another share of the images right, and which ones is pure chance.
    random = np.random.default_rng(0)
    one, other = (
        np.array([random.permutation(np.arange(4000) < hits) for hits in counts])
        for counts in ([3000, 3040, 3100], [3150, 3090, 3180, 3120, 3160])
    )
    parts = spread(one, other)._replace(images=0.0)
    welch = stats.ttest_ind(one.mean(axis=1), other.mean(axis=1), equal_var=False)
    t = (one.mean() - other.mean()) / parts.variance**0.5
    assert t == pytest.approx(welch.statistic)  # pyright: ignore[reportAttributeAccessIssue]
    assert parts.degrees == pytest.approx(welch.df)  # pyright: ignore[reportAttributeAccessIssue]


def missing(*misses: int) -> np.ndarray:
    """Trainings that miss so many images each, and never the same as another: no image is harder than the rest."""
    right = np.ones((len(misses), 400), bool)
    for row, end, count in zip(right, np.cumsum(misses), misses, strict=True):
        row[end - count : end] = False
    return right


def test_without_variance_between_images_interval_and_p_are_welchs() -> None:
    one, other = missing(40, 52, 46), missing(66, 70, 58, 74, 63)
    assert spread(one, other).images == 0
    welch = stats.ttest_ind(one.mean(axis=1), other.mean(axis=1), equal_var=False)
    result = difference(one, other)
    assert result.interval == pytest.approx(welch.confidence_interval(0.95))  # pyright: ignore[reportAttributeAccessIssue]
    assert result.p == pytest.approx(welch.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def test_without_variance_between_images_power_is_that_of_the_t_test() -> None:
    parts = Spread(images=0.0, seeds=(0.003**2, 0.003**2), flips=(0.0, 0.0), trainings=(3, 3), tested=10_000)
    for seeds in (2, 5, 20):
        assert power(parts, 0.004, seeds) == pytest.approx(TTestIndPower().power(0.004 / 0.003, seeds, 0.05), abs=1e-6)


def test_the_number_of_seeds_is_the_first_that_suffices() -> None:
    parts = Spread(images=0.0, seeds=(0.002**2, 0.002**2), flips=(0.0, 0.0), trainings=(3, 3), tested=10_000)
    needed = seeds_needed(parts)
    assert needed is not None
    seeds, target = needed
    assert target == DETECTABLE[0]
    assert power(parts, target, seeds) >= 0.8 > power(parts, target, seeds - 1)
    # When the images alone make the difference uncertain, more seeds do not help.
    assert seeds_needed(parts._replace(images=0.004**2)) == (seeds_of(parts._replace(images=0.004**2), 0.02), 0.02)
    assert seeds_needed(parts._replace(images=1.0)) is None


def seeds_of(parts: Spread, target: float) -> int:
    return next(seeds for seeds in range(2, MOST_SEEDS) if power(parts, target, seeds) >= 0.8)


def no_difference(random: np.random.Generator, seeds: int, spread_of_seeds: float) -> list[np.ndarray]:
    """Two variants that find other images hard, and are equally good on average."""
    hardness = random.normal(1.2, 0.7, 400)
    return [trainings(random, seeds, hardness + random.normal(0, 0.3, 400), spread_of_seeds) for _ in "ab"]


def false_positives(seeds: int, spread_of_seeds: float) -> float:
    random = np.random.default_rng(1)
    found = 0
    for _ in range(3000):
        one, other = no_difference(random, seeds, spread_of_seeds)
        found += difference(one, other).p < 0.05
    return found / 3000


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread_of_seeds"), [(3, 0.0), (3, 0.03), (5, 0.0), (5, 0.03), (5, 0.06)])
def test_where_there_is_no_difference_one_is_shown_in_five_percent(seeds: int, spread_of_seeds: float) -> None:
    assert false_positives(seeds, spread_of_seeds) == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
def test_three_seeds_that_scatter_widely_are_on_the_safe_side() -> None:
    # As in Welch's test, whose rate is 3.5 % when three trainings of each variant are all there is.
    assert 0.03 < false_positives(3, 0.06) < 0.05


def test_two_seeds_that_tie_do_not_make_a_difference_certain() -> None:
    one, other = missing(40, 40), missing(50, 50)
    result = difference(one, other)
    assert result.p > 0.05
    assert result.interval
    assert result.interval[0] < 0 < result.interval[1]


def test_the_standard_deviation_over_n_seeds_is_at_least_an_nth_of_what_flips_imply() -> None:
    random = np.random.default_rng(0)
    of_five = np.array([random.permutation(np.arange(4000) < 3000) for _ in range(5)])  # each image flips by itself
    implied = (0.75 * 0.25 / 4000) ** 0.5
    for n in (2, 5):
        (variance,) = spread(of_five[:n]).seeds
        assert variance**0.5 == pytest.approx(implied / n, rel=0.03)


def test_among_ten_equal_variants_of_two_seeds_differences_are_rarely_shown() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        hardness = random.normal(1.2, 0.7, 360)
        least, *others = sorted((trainings(random, 2, hardness, 0.0) for _ in range(10)), key=np.mean)
        found += min(holm([difference(each, least).p for each in others])) < 0.05
    assert found <= 5


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_miss_the_truth_in_five_percent(seeds: int) -> None:
    random = np.random.default_rng(2)
    misses = 0
    for _ in range(2000):
        one, other = no_difference(random, seeds, 0.03)
        result = difference(one, other)
        assert result.interval
        missed = not result.interval[0] <= 0 <= result.interval[1]
        misses += missed
        assert (result.p < 0.05) == missed
    assert misses / 2000 == pytest.approx(0.05, abs=0.01)


def test_intervals_of_a_single_variant_hold_the_truth_in_95_percent() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        right = trainings(random, 4, random.normal(1.2, 0.7, 500), 0.1)
        low, high = accuracy_interval(right)
        hits += low <= stats.norm.cdf(1.2 / (1 + 0.7**2 + 0.1**2) ** 0.5) <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_true_difference_is_shown_as_often_as_the_power_says() -> None:
    random = np.random.default_rng(3)
    shown, foreseen = [], []
    for _ in range(400):
        hardness = random.normal(1.2, 0.7, 2000)
        one = trainings(random, 4, hardness, 0.05)
        other = trainings(random, 4, hardness + 0.15, 0.05)
        parts = spread(one, other)
        t = abs(other.mean() - one.mean()) / parts.variance**0.5
        shown.append(2 * stats.t.sf(t, parts.degrees) < 0.05)
        foreseen.append(power(parts, 0.0269, 4))  # the true difference of these two
    assert np.mean(shown) == pytest.approx(np.mean(foreseen), abs=0.07)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_a_difference_has_no_direction_of_its_own(one: int, other: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.random((one, 80)) < 0.8, random.random((other, 80)) < 0.7
    there, back = difference(first, second), difference(second, first)
    assert there.interval
    assert back.interval
    assert (there.value, *there.interval) == pytest.approx((-back.value, -back.interval[1], -back.interval[0]))
    assert there.p == pytest.approx(back.p)
    assert 0 <= there.p <= 1
    assert there.interval[0] <= there.interval[1]


def test_several_comparisons_need_more_seeds() -> None:
    parts = Spread(images=0.0, seeds=(0.002**2, 0.002**2), flips=(0.0, 0.0), trainings=(3, 3), tested=10_000)
    alone, among_ten = seeds_needed(parts), seeds_needed(parts, comparisons=10)
    assert alone is not None
    assert among_ten is not None
    assert among_ten[0] > alone[0]
    assert power(parts, among_ten[1], among_ten[0], level=0.005) >= 0.8


def test_equal_trainings_are_no_difference() -> None:
    right = np.ones((3, 50), bool)
    assert difference(right, right) == (0, (0, 0), 1)
