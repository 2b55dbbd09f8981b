import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from normlab.evidence import inference
from normlab.evidence.inference import Arm, Contrast, Floats
from normlab.evidence.intervals import permutation_floor

counts = st.lists(st.integers(9900, 9940), min_size=2, max_size=12)
"""Correct of 10,000 images, by seed."""


def difference(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Contrast:
    return inference.contrast([ours, theirs], [1, -1])


def monte_carlo_error(rate: float, repeats: int) -> float:
    return math.sqrt(rate * (1 - rate) / repeats)


@pytest.mark.filterwarnings("ignore:Precision loss")  # of SciPy, where values are close
@given(counts, counts, st.sampled_from([0.5, 0.95, 0.9975]))
@settings(max_examples=80)
def test_of_two_arms_interval_and_p_are_welchs(
    ours: list[int], theirs: list[int], level: float
) -> None:
    assume(len({*ours}) > 1 or len({*theirs}) > 1)
    one, other = np.array(ours) / 10_000, np.array(theirs) / 10_000
    found, expected = difference(one, other), stats.ttest_ind(one, other, equal_var=False)
    assert found.effect == pytest.approx(one.mean() - other.mean(), abs=1e-15)
    assert found.freedom == pytest.approx(expected.df)
    assert inference.welch_test(found) == pytest.approx(expected.pvalue, rel=1e-6)
    ends = expected.confidence_interval(level)
    assert inference.interval(found, level) == pytest.approx((ends.low, ends.high), abs=1e-9)


def test_a_sum_of_four_arms_has_the_error_and_freedom_of_satterthwaite() -> None:
    generator = np.random.default_rng(0)
    arms = [generator.normal(scale=n, size=2 + n) for n in (1, 2, 3, 4)]
    weights = [1, -1, -0.5, 2]
    found = inference.contrast(arms, weights)
    parts = [w**2 * x.var(ddof=1) / x.size for x, w in zip(arms, weights, strict=True)]
    means = [x.mean() for x in arms]
    assert found.effect == pytest.approx(np.dot(weights, means))
    assert found.error == pytest.approx(math.sqrt(sum(parts)))
    below = sum(part**2 / (x.size - 1) for part, x in zip(parts, arms, strict=True))
    assert found.freedom == pytest.approx(sum(parts) ** 2 / below)
    low, high = inference.interval(found, 0.9)
    half = stats.t.ppf(0.95, found.freedom) * found.error
    assert (low, high) == pytest.approx((found.effect - half, found.effect + half))


@given(counts, counts, st.floats(0.5, 0.9999))
@settings(max_examples=50)
def test_p_is_what_the_level_leaves_where_the_null_is_an_end(
    ours: list[int], theirs: list[int], level: float
) -> None:
    found = difference(ours, theirs)
    assume(found.error > 0)
    for end in inference.interval(found, level):
        assert inference.welch_test(found, end) == pytest.approx(1 - level, rel=1e-6)


@given(st.permutations(range(6)), st.integers(-30, 30), st.floats(-3, 3))
@settings(max_examples=30)
def test_order_of_seeds_shift_and_unit(order: list[int], exponent: int, shift: float) -> None:
    ours, theirs = np.array([3.0, 1, 4, 1, 5, 9]), np.array([2.0, 7, 1, 8])
    found = difference(ours, theirs)
    assert difference(ours[order], theirs[::-1]) == found
    unit = 2.0**exponent
    scaled = difference(unit * ours, unit * theirs)
    assert scaled.effect == unit * found.effect
    assert scaled.error == pytest.approx(unit * found.error)
    assert scaled.freedom == pytest.approx(found.freedom)
    ends = np.array(inference.interval(found, 0.95))
    assert inference.interval(scaled, 0.95) == pytest.approx(unit * ends)
    moved = difference(ours + shift, theirs + shift)
    assert inference.interval(moved, 0.95) == pytest.approx(ends, abs=1e-9)


@given(counts, counts)
@settings(max_examples=30)
def test_swapping_the_arms_turns_all_around(ours: list[int], theirs: list[int]) -> None:
    found, swapped = difference(ours, theirs), difference(theirs, ours)
    low, high = inference.interval(found, 0.95)
    assert inference.interval(swapped, 0.95) == (-high, -low)
    assert inference.welch_test(swapped) == inference.welch_test(found)
    assert inference.permutation_test(theirs[:6], ours[:6]) == inference.permutation_test(
        ours[:6], theirs[:6]
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("ours", "theirs"), [([1, 1], [1, 1, 1]), ([0.1] * 10, [0.3] * 10)])
def test_without_spread_the_effect_is_certain(ours: list[float], theirs: list[float]) -> None:
    found = difference(ours, theirs)
    same = found.effect == 0
    assert inference.interval(found, 0.9999) == (found.effect, found.effect)
    assert (inference.welch_test(found), inference.welch_test(found, found.effect)) == (same, 1)
    assert inference.permutation_test(ours, theirs).value == (1 if same else 2 / math.comb(20, 10))
    assert inference.seeds_needed(found, 1e-9, 0.95) == 2
    assert inference.seeds_needed(found, 0, 0.95) is None


@pytest.mark.filterwarnings("error")
def test_an_arm_without_spread_leaves_the_others_freedom() -> None:
    found = difference([1, 2, 3, 4], [5, 5, 5])
    assert found.freedom == 3


@given(counts, counts, st.floats(0.3, 40), st.sampled_from([0.95, 0.9975]))
@settings(max_examples=60)
def test_seeds_needed_are_the_fewest_that_do(
    ours: list[int], theirs: list[int], half: float, level: float
) -> None:
    found = difference(ours, theirs)

    def reach(seeds: int) -> float:
        arms = tuple(Arm(arm.spread, seeds) for arm in found.arms)
        low, high = inference.interval(Contrast(0.0, arms), level)
        return (high - low) / 2

    needed = inference.seeds_needed(found, half, level)
    assert needed is not None
    assert reach(needed) < half
    assert needed == 2 or reach(needed - 1) >= half


def test_no_number_of_seeds_narrows_an_interval_to_nothing() -> None:
    found = difference([1, 2, 3], [4, 6, 8])  # variances 1 and 4
    for half in (0, -1, 1e-3):
        assert inference.seeds_needed(found, half, 0.95) is None
    # So many seeds have a Normal distribution's quantile.
    many = math.ceil((stats.norm.ppf(0.975) / 0.02) ** 2 * (1 + 4))
    assert inference.seeds_needed(found, 0.02, 0.95) == pytest.approx(many, abs=3)


small = st.lists(st.integers(0, 6), min_size=2, max_size=5)


@given(small, small)
@settings(max_examples=60)
def test_permutation_p_is_scipys_ties_and_all(ours: list[int], theirs: list[int]) -> None:
    def apart(one: Floats, other: Floats, axis: int) -> Floats:
        # Whole numbers, so that equal differences of means are equal.
        sums = len(theirs) * one.sum(axis=axis) - len(ours) * other.sum(axis=axis)
        found: Floats = np.abs(sums)
        return found

    expected = stats.permutation_test(
        (ours, theirs), apart, n_resamples=np.inf, alternative="greater", vectorized=True
    )
    one, other = np.array(ours) / 10_000 + 0.99, np.array(theirs) / 10_000 + 0.99
    found = inference.permutation_test(one, other)
    assert found.value == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.error == 0


def exact_p(ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64]) -> float:
    """Two-sided p of all ways to share out whole numbers, counted by their sums."""
    values = [*ours.tolist(), *theirs.tolist()]
    ways = [{0: 1}, *(dict[int, int]() for _ in ours)]
    for value in values:
        for size in range(len(ours), 0, -1):
            for total, count in ways[size - 1].items():
                ways[size][total + value] = ways[size].get(total + value, 0) + count
    apart = {s: abs(len(values) * s - len(ours) * sum(values)) for s in ways[-1]}
    least = apart[int(ours.sum())]
    extreme = sum(count for s, count in ways[-1].items() if apart[s] >= least)
    return extreme / sum(ways[-1].values())


@pytest.mark.parametrize("sizes", [(10, 10), (3, 20), (12, 12), (20, 15)])
@pytest.mark.parametrize("shift", [0, 4])
def test_permutation_p_of_many_ways_is_that_of_all(sizes: tuple[int, int], shift: int) -> None:
    """Ten seeds and ten have the most ways that are all tried; of more, some are drawn."""
    generator = np.random.default_rng(sum(sizes))
    ours, theirs = (generator.integers(9925, 9935, size=n) for n in sizes)
    ours += shift
    found = inference.permutation_test(ours / 10_000, theirs / 10_000)
    assert (found.error > 0) == (math.comb(sum(sizes), sizes[0]) > 200_000)
    assert found.value == pytest.approx(exact_p(ours, theirs), abs=4 * found.error + 1e-5)
    assert inference.permutation_test(ours / 10_000, theirs / 10_000) == found
    if found.error > 1e-4:
        assert inference.permutation_test(ours / 10_000, theirs / 10_000, seed=1) != found


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_arms_that_do_not_overlap_reach_the_floor(seeds: int) -> None:
    found = inference.permutation_test(np.arange(seeds), np.arange(seeds) + 100)
    assert found.value == permutation_floor(seeds, seeds)


def test_drawn_permutations_are_never_too_few_for_a_p() -> None:
    found = inference.permutation_test(np.arange(30), np.arange(30) + 100)
    assert found.value == 1 / 100_000


def exact_trend(arms: list[list[int]]) -> tuple[float, bool]:
    """Two-sided p of Cuzick's statistic over all orders of the trials, and whether it rises."""
    ranks = 2 * stats.rankdata([x for arm in arms for x in arm])
    positions = np.repeat(range(len(arms)), [len(arm) for arm in arms])
    drawn = np.array(list(itertools.permutations(ranks))) @ positions
    above, below = ((drawn >= drawn[0]).mean(), (drawn <= drawn[0]).mean())
    return min(1.0, 2 * min(above, below)), bool(above < below)


@given(st.sampled_from([(2, 2), (3, 2), (2, 2, 2), (2, 3, 2), (4, 3), (3, 4)]), st.data())
@settings(max_examples=30, deadline=None)
def test_trend_p_is_that_of_all_permutations(sizes: tuple[int, ...], data: st.DataObject) -> None:
    value = st.integers(0, data.draw(st.sampled_from([1, 3, 50])))
    arms = [data.draw(st.lists(value, min_size=n, max_size=n)) for n in sizes]
    exact, rises = exact_trend(arms)
    found = inference.trend_test([np.array(arm) / 10_000 for arm in arms], 4000)
    error = 2 * monte_carlo_error(min(exact / 2, 0.5), 4000)
    assert found.p.value == pytest.approx(exact, abs=5 * error + 1e-3)
    assert exact > 0.9 or found.rising == rises


def test_over_two_arms_the_trend_is_wilcoxons() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(size=8), generator.normal(1.5, size=11)
    expected = stats.mannwhitneyu(ours, theirs, method="exact").pvalue
    found = inference.trend_test([ours, theirs])
    assert found.rising
    assert found.p.value == pytest.approx(expected, abs=4 * found.p.error)


def test_a_trend_keeps_with_unit_and_order_of_seeds_and_turns_with_the_arms() -> None:
    arms = list(np.random.default_rng(0).integers(9, size=(4, 6)) + np.arange(4).reshape(4, 1))
    found = inference.trend_test(arms, 500, seed=3)
    assert inference.trend_test([arm.tolist() for arm in arms], 500, seed=3) == found
    assert inference.trend_test([arm * 2.0**-20 + 7 for arm in arms], 500, seed=3) == found
    assert inference.trend_test([arm / 10_000 for arm in arms], 500, seed=3) == found
    assert inference.trend_test(arms, 500, seed=4) != found
    # Drawn anew, as the pooled trials come in another order.
    others = ([arm[::-1] for arm in arms], True), (arms[::-1], False)
    for other, rising in others:
        again = inference.trend_test(other, 20_000)
        assert again.p.value == pytest.approx(found.p.value, abs=5 * found.p.error)
        assert again.rising == rising


def test_a_trends_p_has_a_floor_and_a_ceiling() -> None:
    rising = [np.arange(10) + 20 * place for place in range(6)]
    found = inference.trend_test(rising, 999)
    assert (found.p.value, found.rising) == (2 / 1000, True)
    assert inference.trend_test(rising[::-1], 999) == (found.p, False)
    assert inference.trend_test([[1, 1], [1, 1, 1]], 999).p.value == 1


def test_a_climb_that_ends_in_a_collapse_rises() -> None:
    means = [0.990, 0.991, 0.992, 0.993, 0.994, 0.1]
    arms = [np.linspace(mean, mean + 1e-4, 10) for mean in means]
    assert inference.trend_test(arms, 999).rising


@pytest.mark.parametrize("step", [2, 7])
def test_trends_in_noise_are_rarely_significant(step: int) -> None:
    """Arms of 6 to 12 seeds, with many and with few ties."""
    generator = np.random.default_rng(step)
    repeats, found = 800, 0
    for repeat in range(repeats):
        arms = [np.round(9930 + step * generator.normal(size=n)) / 10_000 for n in (6, 10, 8, 12)]
        found += inference.trend_test(arms, 499, seed=repeat).p.value <= 0.05
    assert found / repeats == pytest.approx(0.05, abs=3 * monte_carlo_error(0.05, repeats))


@pytest.mark.parametrize("arm", [[], [1], 1, [[1, 2]], [1, math.nan], [1, math.inf]])
def test_arms_that_are_none_are_refused(arm: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^arms: "):
        inference.contrast([[1, 2], arm], [1, -1])
    with pytest.raises(ValueError, match=r"^arms: "):
        inference.permutation_test([1, 2], arm)
    with pytest.raises(ValueError, match=r"^arms: "):
        inference.trend_test([[1, 2], arm])


def test_too_few_arms_or_draws_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^arms: got 0, allowed: 1 or more"):
        inference.contrast([], [])
    with pytest.raises(ValueError, match=r"^arms: got 1, allowed: 2 or more"):
        inference.trend_test([[1, 2]])
    with pytest.raises(ValueError, match=r"^draws: got 0"):
        inference.trend_test([[1, 2], [3, 4]], 0)
