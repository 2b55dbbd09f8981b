import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normlab.evidence.inference import fitted_change, trend_test
from tests.evidence.test_inference import monte_carlo_error


def exact_trend(values: npt.ArrayLike) -> float:
    """Two-sided p of Page's L: its null distribution convolved over seeds, ties and all."""
    ranks = np.round(2 * stats.rankdata(values, axis=1)).astype(np.int64)
    chances = np.ones(1)
    for row in ranks:
        orders = np.array(list(itertools.permutations(row)))
        sums = orders @ np.arange(1, len(row) + 1)
        chances = np.convolve(chances, np.bincount(sums) / len(sums))
    observed = int((ranks @ np.arange(1, ranks.shape[1] + 1)).sum())
    up, down = float(chances[observed:].sum()), float(chances[: observed + 1].sum())
    return min(1.0, 2 * min(up, down))


@given(st.integers(1, 8), st.integers(2, 5), st.sampled_from([1, 3, 20]), st.integers(0, 2**32))
@settings(max_examples=60)
def test_trend_p_is_that_of_all_permutations(
    seeds: int, count: int, spread: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(spread + 1, size=(seeds, count)) / 10_000
    exact = exact_trend(values)
    error = 2 * monte_carlo_error(exact / 2, 4000)
    assert trend_test(values, 4000, seed=seed).p == pytest.approx(exact, abs=5 * error + 1e-3)


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.3])
def test_without_ties_it_is_pages_test_both_ways(slope: float) -> None:
    values = np.random.default_rng(0).normal(size=(8, 5)) + slope * np.arange(5)
    up, down = (
        stats.page_trend_test(data, method="exact").pvalue for data in (values, values[:, ::-1])
    )
    expected = min(1.0, 2 * min(up, down))
    assert exact_trend(values) == pytest.approx(expected)
    error = 2 * monte_carlo_error(expected / 2, 100_000)
    assert trend_test(values, 100_000, seed=0).p == pytest.approx(expected, abs=4 * error + 1e-4)


def test_seed_effects_and_units_leave_the_trend_as_it_is() -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(5, size=(6, 4))
    p = trend_test(values, 500, seed=3)
    assert trend_test(values.tolist(), 500, seed=3) == p
    assert trend_test(values + 100 * generator.integers(9, size=(6, 1)), 500, seed=3) == p
    assert trend_test(values * 2.0**-20, 500, seed=3) == p
    assert trend_test(values, 500, seed=4) != p


def test_trend_p_has_a_floor_and_a_ceiling() -> None:
    rising = np.tile(np.arange(6), (10, 1))
    assert trend_test(rising, 999, seed=0) == (2 / 1000, True)
    assert trend_test(rising[:, ::-1], 999, seed=0) == (2 / 1000, False)
    assert trend_test(np.ones((10, 6)), 999, seed=0).p == 1
    assert trend_test(rising[:1, :3], 9999, seed=0).p == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("step", [2, 7])
def test_trends_in_noise_are_rarely_significant(step: int) -> None:
    """Ten seeds, each with an effect of its own, and six settings, with many and with few ties."""
    generator = np.random.default_rng(step)
    repeats, found = 1500, 0
    for repeat in range(repeats):
        effects = generator.normal(scale=20, size=(10, 1))
        correct = np.round(9930 + effects + step * generator.normal(size=(10, 6)))
        found += trend_test(correct / 10_000, 999, seed=repeat).p <= 0.05
    # L comes in steps, which leaves 4.8 to 4.9 of the 5 %.
    assert found / repeats == pytest.approx(0.048, abs=3 * monte_carlo_error(0.048, repeats))


def test_trend_of_1_3_sd_over_six_arms_is_found_with_ten_seeds() -> None:
    generator = np.random.default_rng(0)
    rise = np.linspace(0, 1.3, 6)
    found = [
        trend_test(rise + generator.normal(size=(10, 6)), 999, seed=n).p <= 0.05 for n in range(400)
    ]
    assert np.mean(found) > 0.8


@given(st.integers(1, 6), st.integers(2, 7), st.integers(0, 2**32))
@settings(max_examples=40)
def test_fitted_change_is_that_of_a_line_through_each_seed(
    seeds: int, count: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(seeds, count))
    lines = [np.polynomial.Polynomial.fit(range(count), row, 1) for row in values]
    expected = [line(count - 1) - line(0) for line in lines]
    change = fitted_change(values)
    assert change.dtype == np.float64
    np.testing.assert_allclose(change, expected, atol=1e-9)


def test_fitted_change_of_two_arms_is_their_difference() -> None:
    np.testing.assert_allclose(fitted_change(np.array([[0.5, 0.75], [1.0, -1.0]])), [0.25, -2.0])


ordered = pytest.mark.parametrize(
    "values", [[], [[]], [[1], [2]], [1, 2], np.zeros((2, 2, 2)), [[0, math.nan]], [[0, math.inf]]]
)


@ordered
def test_trend_test_refuses(values: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        trend_test(values, seed=0)


@ordered
def test_fitted_change_refuses(values: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        fitted_change(values)


def test_a_climb_that_ends_in_a_collapse_is_no_fall() -> None:
    values = np.array([[0.990, 0.991, 0.992, 0.993, 0.994, 0.1]] * 10)
    assert trend_test(values, 999, seed=0).rising
    assert (fitted_change(values) < 0).all()


def test_trend_test_refuses_no_resamples() -> None:
    with pytest.raises(ValueError, match=r"^resamples: got 0"):
        trend_test([[0, 1]], 0, seed=0)
