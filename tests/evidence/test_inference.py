import gc
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normlab.evidence.inference import (
    holm,
    paired_interval,
    sign_flip_test,
    smallest_p,
)
from normlab.evidence.intervals import Interval, sign_flip_floor

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


@pytest.fixture(autouse=True, scope="module")
def _no_collection() -> Iterator[None]:
    """Holm's adjustment by statsmodels collects garbage each time, most of what it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


def enumerated_bca(x: Floats) -> tuple[float, float]:
    """Expanded BCa interval from all n**n resamples, by the formulas of Efron 1987."""
    n = len(x)
    means = np.array(list(itertools.product(x, repeat=n))).mean(axis=1)
    below = np.mean(means < x.mean() - 1e-12) + np.mean(np.abs(means - x.mean()) < 1e-12) / 2
    bias = stats.norm.ppf(below)
    distances = x - x.mean()
    acceleration = (distances**3).sum() / (6 * (distances**2).sum() ** 1.5)
    z = math.sqrt(n / (n - 1)) * stats.t.ppf([0.025, 0.975], n - 1)
    levels = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


@pytest.mark.parametrize(
    "differences",
    [[1, 2, 4, 9, 3], [3, 1, 4, 1, 5, 9], [0.7, 0.1, -0.3, 0.2, 0.15, 0.9], [0, 1, 1, 0, 0, 1]],
)
def test_interval_is_that_of_all_resamples(differences: list[float]) -> None:
    x = np.array(differences, dtype=np.float64)
    interval = paired_interval(x, 200_000, seed=0)
    assert interval.mean == pytest.approx(x.mean())
    assert interval[1:] == pytest.approx(enumerated_bca(x), abs=0.015 * np.ptp(x))


NOISES: dict[str, Draw] = {
    "normal": lambda generator, n: generator.normal(size=n),
    "steps": lambda generator, n: np.round(7 * generator.normal(size=n)) * 1e-4,
    "skewed": lambda generator, n: generator.exponential(size=n) - 1,
}


@pytest.mark.parametrize(
    ("seeds", "noise", "expected"),
    [
        (6, "normal", 0.933),
        (6, "steps", 0.935),
        (6, "skewed", 0.898),
        (10, "normal", 0.945),
        (10, "steps", 0.946),
        (10, "skewed", 0.925),
    ],
)
def test_coverage_is_as_documented(seeds: int, noise: str, expected: float) -> None:
    """Each data set has expected difference 0."""
    generator = np.random.default_rng(0)
    repeats = 1200
    intervals = [paired_interval(NOISES[noise](generator, seeds), seed=n) for n in range(repeats)]
    covered = sum(low <= 0 <= high for _, low, high in intervals) / repeats
    assert covered == pytest.approx(expected, abs=3 * monte_carlo_error(expected, repeats))


def monte_carlo_error(rate: float, repeats: int) -> float:
    return math.sqrt(rate * (1 - rate) / repeats)


def test_same_seed_same_interval() -> None:
    differences = np.random.default_rng(0).normal(size=10)
    first = paired_interval(differences, seed=7)
    assert paired_interval(differences.tolist(), seed=7) == first
    assert paired_interval(differences, seed=8) != first


several = st.lists(st.integers(-40, 40), min_size=2, max_size=12)


@given(several.filter(lambda x: len(set(x)) > 1), st.floats(-2, 2), st.floats(0.1, 10))
@settings(max_examples=50)
def test_interval_follows_shift_and_scale(
    differences: list[int], shift: float, scale: float
) -> None:
    expected = shift + scale * np.array(paired_interval(differences, 200, seed=0))
    moved = paired_interval(shift + scale * np.array(differences), 200, seed=0)
    assert moved == pytest.approx(expected, rel=1e-7, abs=1e-7)


@given(several)
@settings(max_examples=50)
def test_interval_lies_within_the_data_and_around_the_mean(differences: list[int]) -> None:
    mean, low, high = paired_interval(differences, 200, seed=0)
    assert min(differences) - 1e-6 <= low <= mean <= high <= max(differences) + 1e-6


def test_swapping_the_arms_turns_the_interval_around() -> None:
    skewed = np.random.default_rng(0).exponential(size=10)
    mean, low, high = paired_interval(skewed, 50_000, seed=0)
    swapped = paired_interval(-skewed[::-1], 50_000, seed=1)
    assert swapped == pytest.approx((-mean, -high, -low), abs=0.03 * (high - low))
    assert high - mean > 1.2 * (mean - low)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.25])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_equal_differences_leave_no_width(seeds: int, value: float) -> None:
    assert paired_interval([value] * seeds, seed=0) == Interval(value, value, value)


@pytest.mark.filterwarnings("error")
def test_interval_of_two_seeds_is_their_range() -> None:
    assert paired_interval([0.25, 0.75], seed=0) == pytest.approx((0.5, 0.25, 0.75))


@pytest.mark.parametrize(
    "differences", [[], [0.1], 0.1, [[0.1, 0.2]], [0.1, math.nan], [0.1, math.inf]]
)
def test_paired_interval_refuses(differences: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^differences: "):
        paired_interval(differences, seed=0)


def test_paired_interval_refuses_few_resamples() -> None:
    with pytest.raises(ValueError, match=r"^resamples: got 99"):
        paired_interval([0.1, 0.2], 99, seed=0)


def flipped_p(differences: npt.ArrayLike) -> Floats:
    """Sign-flip p of every flip of whole numbers, counted one by one; the last is the data's."""
    whole = np.array(differences, dtype=np.int64)
    flips = np.array(list(itertools.product([-1, 1], repeat=len(whole))))
    sums = np.abs(flips @ whole)
    return np.array([(sums >= own).mean() for own in np.unique(sums)])[
        np.unique(sums, return_inverse=True)[1]
    ]


@pytest.mark.parametrize("seeds", [2, 3, 6, 8, 11])
def test_sign_flips_of_accuracies_are_those_of_counts(seeds: int) -> None:
    """In floats equal sums differ: 0.9931 - 0.9924 is not 0.9932 - 0.9925."""
    for first, second in np.random.default_rng(seeds).integers(9900, 9940, size=(20, 2, seeds)):
        expected = flipped_p(first - second)[-1]
        assert sign_flip_test(first / 10_000 - second / 10_000) == expected


def test_sign_flip_test_changes_with_neither_order_nor_sign_nor_unit() -> None:
    differences = np.array([0.3, -0.1, 0.25, 0.7, 0.0, 0.4])
    p = sign_flip_test(differences)
    assert p == 8 / 64
    assert sign_flip_test(differences[::-1]) == p
    assert sign_flip_test(-1e-6 * differences) == p


@pytest.mark.parametrize("seeds", [1, 2, 6, 10])
def test_agreeing_seeds_reach_the_floor(seeds: int) -> None:
    assert sign_flip_test(np.arange(1, seeds + 1)) == sign_flip_floor(seeds)


def test_zeros_show_nothing() -> None:
    assert sign_flip_test(np.zeros(8)) == 1


def test_many_seeds_are_flipped_at_random() -> None:
    """The exact p is of the binomial distribution: all sizes are equal."""
    differences = np.repeat([1, -1], [15, 5])
    p, exact = sign_flip_test(differences), stats.binomtest(15, 20).pvalue
    assert p == pytest.approx(exact, abs=4 * monte_carlo_error(exact, 2**16))
    assert sign_flip_test(differences) == p
    assert sign_flip_test(np.ones(40)) == 1 / (1 + 2**16)


@pytest.mark.parametrize("differences", [[], 0.1, [[0.1, 0.2]], [0.1, math.nan], [math.inf]])
def test_sign_flip_test_refuses(differences: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^differences: "):
        sign_flip_test(differences)


@pytest.mark.parametrize(("seeds", "step"), [(6, 2), (10, 7)])
def test_sign_flips_of_noise_are_significant_as_often_as_they_can_be(seeds: int, step: int) -> None:
    """Seeds share an effect that pairing removes; `step` is the noise's SD in steps of accuracy.

    What 5 % comes to depends on the sizes that are flipped: at most 2 / 64 with six seeds.
    """
    generator = np.random.default_rng(1)
    repeats, found, attainable = 700, 0, 0.0
    for _ in range(repeats):
        effects = generator.normal(scale=20, size=seeds)
        correct = np.round(9930 + effects + step * generator.normal(size=(2, seeds)))
        found += sign_flip_test(correct[0] / 10_000 - correct[1] / 10_000) <= 0.05
        attainable += float((flipped_p(correct[0] - correct[1]) <= 0.05).mean()) / repeats
    assert attainable <= 0.05
    error = monte_carlo_error(attainable, repeats)
    assert found / repeats == pytest.approx(attainable, abs=3 * error)


def test_sign_flip_test_finds_a_shift_of_1_2_sd_with_ten_seeds() -> None:
    generator = np.random.default_rng(0)
    found = [sign_flip_test(generator.normal(1.2, size=10)) <= 0.05 for _ in range(400)]
    assert np.mean(found) > 0.8


def stepped_down(p_values: list[float]) -> list[float]:
    adjusted, largest = dict[int, float](), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return [adjusted[index] for index in range(len(p_values))]


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), max_size=15))
def test_holm_steps_down(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(stepped_down(p_values))
    assert all(type(p) is float for p in adjusted)


def test_holm_of_three() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize("p_values", [0.5, [[]], [[0.5]], [0.5, math.nan], [-0.1], [0.5, 1.1]])
def test_holm_refuses(p_values: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^p_values: "):
        holm(p_values)


def test_a_family_of_thirteen_nulls_rarely_yields_a_finding() -> None:
    """The p-values are Student's, hence uniform: Holm's correction alone is at work."""
    generator = np.random.default_rng(0)
    families = 1500
    p = stats.ttest_1samp(generator.normal(size=(families, 13, 10)), 0, axis=2).pvalue
    found = np.mean([min(holm(family)) <= 0.05 for family in p])
    expected = 1 - (1 - 0.05 / 13) ** 13
    assert found == pytest.approx(expected, abs=3 * monte_carlo_error(expected, families))
    assert (p.min(axis=1) <= 0.05).mean() > 0.4


def test_a_family_of_thirteen_sign_flip_tests_rarely_yields_a_finding() -> None:
    """The smallest p, 2 / 1024, is the only one that 13 tests leave below 0.05."""
    generator = np.random.default_rng(0)
    families = 150
    p = np.array(
        [[sign_flip_test(generator.normal(size=10)) for _ in range(13)] for _ in range(families)]
    )
    found = np.mean([min(holm(family)) <= 0.05 for family in p])
    assert 0 < found <= 0.05 + 3 * monte_carlo_error(0.05, families)
    assert (p.min(axis=1) <= 0.05).mean() > 0.3


@pytest.mark.parametrize(("seeds", "tests"), [(1, 1), (6, 1), (9, 13), (10, 13), (3, 5)])
def test_smallest_p_is_what_agreeing_seeds_reach(seeds: int, tests: int) -> None:
    family = [sign_flip_test(np.arange(1, seeds + 1)), *[1.0] * (tests - 1)]
    assert smallest_p(seeds, tests) == pytest.approx(min(holm(family)))


def test_thirteen_tests_take_ten_seeds() -> None:
    assert smallest_p(9, 13) > 0.05 > smallest_p(10, 13)


@pytest.mark.parametrize(("seeds", "tests", "name"), [(0, 1, "seeds"), (5, 0, "tests")])
def test_smallest_p_refuses(seeds: int, tests: int, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got 0"):
        smallest_p(seeds, tests)
