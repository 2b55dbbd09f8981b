import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from normlab.evidence.intervals import (
    Interval,
    Summary,
    mean_interval,
    pigeonhole_bootstrap,
    resampled_variance,
    sign_flip_floor,
    verdict,
)

Floats = npt.NDArray[np.float64]


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12, unique=True))
@settings(max_examples=50)
def test_mean_interval_is_the_student_t_interval(values: list[int]) -> None:
    mean, sem = np.mean(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=sem)
    std = np.std(values, ddof=1)
    assert mean_interval(values) == pytest.approx((mean, std, low, high), abs=1e-9)


def test_equal_values_leave_no_width() -> None:
    assert mean_interval([0.5, 0.5, 0.5]) == Summary(0.5, 0.0, 0.5, 0.5)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    assert mean_interval([0.993]) == Summary(0.993, None, None, None)


@pytest.mark.parametrize("values", [[], [[0.5, 0.5]], 0.5, [0.5, math.nan], [0.5, math.inf]])
def test_mean_interval_refuses(values: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^values: "):
        mean_interval(values)


def trials(seeds: int, images: int, seed: int, shift_sd: float = 0.0) -> npt.NDArray[np.int8]:
    """Draw differences in {-1, 0, 1}: images differ in difficulty, seeds in a common shift."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(size=images)
    shift = shift_sd * generator.normal(size=(seeds, 1))
    score = hard + shift + generator.normal(size=(seeds, images))
    return (score > 1.3).astype(np.int8) - (score < -1.3).astype(np.int8)


def components(data: Floats) -> tuple[float, float, float]:
    """Mean squares (divisor: the number of terms) of seed effects, image effects and the rest."""
    rows = data.mean(axis=1, keepdims=True) - data.mean()
    columns = data.mean(axis=0) - data.mean()
    rest = data - data.mean() - rows - columns
    return float((rows**2).mean()), float((columns**2).mean()), float((rest**2).mean())


def enumerated_variance(data: npt.NDArray[np.int64]) -> Fraction:
    """Variance of the means of all resamples: rows to the rows, columns to the columns."""
    row_counts, column_counts = (
        np.array([np.bincount(draw, minlength=n) for draw in itertools.product(range(n), repeat=n)])
        for n in data.shape
    )
    sums = (row_counts @ data @ column_counts.T).ravel().tolist()
    mean = Fraction(sum(sums), len(sums))
    return sum(((n - mean) ** 2 for n in sums), Fraction()) / (len(sums) * data.size**2)


tiny = st.tuples(st.integers(1, 4), st.integers(1, 4))
tables = hnp.arrays(np.int64, tiny, elements=st.integers(-3, 3))


@given(tables)
@settings(max_examples=40)
def test_resampled_variance_is_that_of_all_resamples(data: npt.NDArray[np.int64]) -> None:
    assert sum(resampled_variance(data)) == enumerated_variance(data)
    # In quarters and around another mean, exactly: floats too are whole numbers over some unit.
    assert sum(resampled_variance(data / 4 + 2**20)) == enumerated_variance(data) / 16


@given(tables)
@settings(max_examples=40)
def test_the_interval_is_as_wide_as_all_resamples_of_seeds_moved_apart(
    data: npt.NDArray[np.int64],
) -> None:
    seeds = len(data)
    shifts = data.mean(axis=1, keepdims=True) - data.mean()
    moved = data + (math.sqrt(seeds / max(seeds - 1, 1)) - 1) * shifts
    draws = [np.array(list(itertools.product(range(n), repeat=n))) for n in data.shape]
    means = moved[draws[0][:, :, None, None], draws[1]].mean(axis=(1, 3))
    variance = ((means - data.mean()) ** 2).mean()
    seed_part = (moved.mean(axis=1) - data.mean()) @ (moved.mean(axis=1) - data.mean()) / seeds**2
    freedom = (seeds - 1) * (variance / seed_part) ** 2 if seed_part > 1e-12 else math.inf
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    expected = (data.mean(), data.mean() - half, data.mean() + half)
    assert pigeonhole_bootstrap(data) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_resampled_variance_is_that_of_many_resamples(seeds: int) -> None:
    data = trials(seeds, 60, seed=seeds, shift_sd=0.3).astype(np.float64)
    generator = np.random.default_rng(2)
    means = np.array(
        [
            data[generator.integers(seeds, size=seeds)][:, generator.integers(60, size=60)].mean()
            for _ in range(4000)
        ]
    )
    assert means.var() == pytest.approx(float(sum(resampled_variance(data))), rel=0.1)


@given(st.integers(1, 9), st.integers(20, 60), st.floats(0, 1), st.integers(0, 2**32))
@settings(max_examples=20)
def test_resampled_variance_is_that_of_seeds_images_and_rest(
    seeds: int, images: int, shift_sd: float, seed: int
) -> None:
    data = trials(seeds, images, seed=seed, shift_sd=shift_sd).astype(np.float64)
    rows, columns, rest = components(data)
    expected = (rows / seeds, columns / images, rest / (seeds * images))
    got = tuple(float(part) for part in resampled_variance(data))
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("shift_sd", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_interval_is_welch_satterthwaite_of_the_widened_variance(
    seeds: int, shift_sd: float
) -> None:
    data = trials(seeds, 300, seed=1, shift_sd=shift_sd).astype(np.float64)
    rows, columns, rest = components(data)
    seed_part = rows / (seeds - 1) if seeds > 1 else 0.0
    variance = seed_part + columns / 300 + rest / (seeds * 300)
    freedom = (seeds - 1) * (variance / seed_part) ** 2 if seeds > 1 else math.inf
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    expected = (data.mean(), data.mean() - half, data.mean() + half)
    assert pigeonhole_bootstrap(data) == pytest.approx(expected, abs=1e-9 * half)


def test_with_seed_noise_alone_the_interval_is_student_t() -> None:
    per_seed = np.array([0.01, -0.002, 0.004, 0.0, 0.003])
    interval = pigeonhole_bootstrap(np.repeat(per_seed[:, None], 50, axis=1))
    mean, _, low, high = mean_interval(per_seed)
    assert interval == pytest.approx((mean, low, high), rel=1e-12)


def image_noise(generator: np.random.Generator) -> npt.NDArray[np.int8]:
    return np.tile(generator.integers(-1, 2, size=300, dtype=np.int8), (3, 1))


def seed_noise(generator: np.random.Generator) -> npt.NDArray[np.int8]:
    chance = 0.5 + 0.1 * generator.normal(size=(3, 1))
    return np.where(generator.random((3, 1000)) < chance, 1, -1).astype(np.int8)


def mixed_noise(generator: np.random.Generator) -> npt.NDArray[np.int8]:
    return generator.integers(-1, 2, size=(3, 300), dtype=np.int8)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(image_noise, 0.95), (seed_noise, 0.95), (mixed_noise, 0.99)],
    ids=["images", "seeds", "seed by image"],
)
def test_coverage_with_three_seeds(
    draw: Callable[[np.random.Generator], npt.NDArray[np.int8]], expected: float
) -> None:
    """Each data set has expected difference 0; the third noise is the one counted repeatedly."""
    generator = np.random.default_rng(0)
    repeats = 400
    intervals = [pigeonhole_bootstrap(draw(generator)) for _ in range(repeats)]
    covered = sum(low <= 0 <= high for _, low, high in intervals) / repeats
    error = math.sqrt(expected * (1 - expected) / repeats)
    assert covered == pytest.approx(expected, abs=3.5 * error)


shapes = st.tuples(st.integers(1, 6), st.integers(20, 60), st.integers(0, 2**32))


@given(shapes)
@settings(max_examples=25)
def test_order_and_type_change_no_bit_and_swapping_the_variants_the_signs(
    shape: tuple[int, int, int],
) -> None:
    data = trials(*shape, shift_sd=0.3)
    mean, low, high = pigeonhole_bootstrap(data)
    assert pigeonhole_bootstrap(data.astype(np.float32)) == (mean, low, high)
    generator = np.random.default_rng(0)
    shuffled = generator.permutation(generator.permutation(data, axis=1), axis=0)
    assert pigeonhole_bootstrap(shuffled) == (mean, low, high)
    assert pigeonhole_bootstrap(-data) == (-mean, -high, -low)


@given(shapes, st.floats(-2, 2), st.floats(0.1, 10))
@settings(max_examples=25)
def test_interval_follows_shift_and_scale(
    shape: tuple[int, int, int], shift: float, scale: float
) -> None:
    data = trials(*shape, shift_sd=0.3)
    expected = shift + scale * np.array(pigeonhole_bootstrap(data))
    moved = pigeonhole_bootstrap(shift + scale * data)
    assert moved == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("value", [-1, 0, 1])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_equal_differences_leave_no_width(seeds: int, value: int) -> None:
    interval = pigeonhole_bootstrap(np.full((seeds, 40), value, dtype=np.int8))
    assert interval == Interval(value, value, value)


@pytest.mark.parametrize(
    "differences",
    [[], [[]], np.zeros((0, 5)), [0, 1], np.zeros((2, 2, 2)), [[0, math.nan]], [[0, math.inf]]],
)
def test_pigeonhole_bootstrap_refuses(differences: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^differences: "):
        pigeonhole_bootstrap(differences)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.002, "better"),
        (-0.002, -0.001, "worse"),
        (-0.001, 0.001, "no difference shown"),
        (0.0, 0.001, "no difference shown"),
        (-0.001, 0.0, "no difference shown"),
        (0.0, 0.0, "no difference shown"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(low, high) == expected


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan)])
def test_verdict_refuses(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"^interval: "):
        verdict(low, high)


@pytest.mark.parametrize("seeds", [1, 2, 3, 6, 9])
def test_sign_flip_floor_is_what_enumeration_finds_when_all_seeds_agree(seeds: int) -> None:
    differences = np.arange(1, seeds + 1)
    flips = np.array(list(itertools.product([1, -1], repeat=seeds)))
    extreme = np.abs(flips @ differences) >= differences.sum()
    assert sign_flip_floor(seeds) == extreme.mean()


def test_sign_flip_floor_refuses_no_seeds() -> None:
    with pytest.raises(ValueError, match=r"^seeds: got 0"):
        sign_flip_floor(0)
