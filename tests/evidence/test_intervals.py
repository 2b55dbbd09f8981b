import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normlab.evidence.intervals import (
    Interval,
    Summary,
    accuracy_interval,
    difference_interval,
    mean_interval,
    mean_squares,
    permutation_floor,
    verdict,
)
from tests.evidence import simulations

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


def draw(
    generator: np.random.Generator, seeds: int, images: int, shift_sd: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Draw which images an arm's trials get right: images differ in difficulty, seeds in skill."""
    hard = np.linspace(-2, 2, images)
    skill = shift_sd * generator.normal(size=(seeds, 1))
    return hard + skill + generator.normal(size=(seeds, images)) < 1.3


sizes = st.tuples(st.integers(2, 6), st.integers(2, 40), st.floats(0, 1))
numbers = st.integers(0, 2**32)


def analysed(table: Floats) -> tuple[float, float, float]:
    """The mean squares of textbooks: of row means, of column means and of what they leave."""
    rows, columns = table.shape
    of_rows = table.mean(axis=1, keepdims=True) - table.mean()
    of_columns = table.mean(axis=0) - table.mean()
    rest = table - table.mean() - of_rows - of_columns
    return (
        columns * float((of_rows**2).sum()) / (rows - 1),
        rows * float((of_columns**2).sum()) / (columns - 1),
        float((rest**2).sum()) / (rows - 1) / (columns - 1),
    )


def welch(centre: float, parts: list[tuple[float, float]]) -> Interval:
    """Satterthwaite's interval of parts of a variance with their degrees of freedom."""
    total = sum(variance for variance, _ in parts)
    squares = sum(variance**2 / freedom for variance, freedom in parts)
    half = stats.t.ppf(0.975, total**2 / squares) * math.sqrt(total) if total else 0.0
    return Interval(centre, centre - half, centre + half)


@given(sizes, numbers)
@settings(max_examples=40)
def test_mean_squares_are_those_of_textbooks(size: tuple[int, int, float], seed: int) -> None:
    table = draw(np.random.default_rng(seed), *size).astype(np.int64)
    got = tuple(float(part) for part in mean_squares(table))
    assert got == pytest.approx(analysed(table.astype(float)), abs=1e-12)


@given(sizes, numbers)
@settings(max_examples=60)
def test_an_accuracy_has_the_interval_of_random_effects(
    size: tuple[int, int, float], seed: int
) -> None:
    correct = draw(np.random.default_rng(seed), *size)
    seeds, images = correct.shape
    of_seeds, of_images, rest = analysed(correct.astype(float))
    parts = [(of_seeds / correct.size, seeds - 1.0)]
    if of_images > rest + 1e-12:
        freedom = (seeds - 1.0) * (images - 1)
        parts += [(of_images / correct.size, images - 1.0), (-rest / correct.size, freedom)]
    expected = welch(correct.mean(), parts)
    found = accuracy_interval(correct)
    assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-12)
    _, std, low, high = mean_interval(correct.mean(axis=1))
    assert found.std == std
    assert found.low is not None
    assert low is not None
    if of_images <= rest:
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


@given(sizes, st.integers(2, 6), numbers)
@settings(max_examples=60)
def test_a_difference_has_the_interval_of_random_effects(
    size: tuple[int, int, float], others: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    ours, theirs = draw(generator, *size), draw(generator, others, *size[1:])
    images = size[1]
    by_image = ours.mean(axis=0) - theirs.mean(axis=0)
    parts = []
    common = [(by_image.var(ddof=1) / images, images - 1.0)]
    for arm in (ours, theirs):
        n = len(arm)
        of_seeds, _, rest = analysed(arm.astype(float))
        parts.append((of_seeds / n / images, n - 1.0))
        common.append((-rest / n / images, (n - 1.0) * (images - 1)))
    if sum(variance for variance, _ in common) > 1e-14:
        parts += common
    expected = welch(ours.mean() - theirs.mean(), parts)
    assert difference_interval(ours, theirs) == pytest.approx(expected, abs=1e-12)


def test_images_and_seeds_alone_have_the_intervals_that_are_known() -> None:
    """Of trials that agree on every image, and of ones that are right on all or on none."""
    one = np.arange(1000) % 50 != 0
    spread = one.std(ddof=1) / math.sqrt(1000)
    found = accuracy_interval(np.tile(one, (3, 1)))
    assert found.high == pytest.approx(0.98 + stats.t.ppf(0.975, 999) * spread, abs=1e-9)
    every = np.repeat([[True], [False], [True], [True]], 1000, axis=1)
    _, _, low, high = mean_interval([1, 0, 1, 1])
    assert accuracy_interval(every)[2:] == pytest.approx((low, high))
    a, b = every, np.repeat([[False], [True], [False], [False], [True]], 1000, axis=1)
    test = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False).confidence_interval()
    assert difference_interval(a, b)[1:] == pytest.approx(tuple(test))


def test_one_seed_speaks_for_itself() -> None:
    correct = draw(np.random.default_rng(0), 2, 500)
    assert accuracy_interval(correct[:1]) == Summary(correct[0].mean(), None, None, None)
    found = difference_interval(correct[:1], correct[1:])
    test = stats.ttest_rel(*correct.astype(float)).confidence_interval()
    assert found[1:] == pytest.approx(tuple(test), abs=1e-12)


@pytest.mark.parametrize(("seeds", "skill"), [(3, 0.0), (3, 0.06), (12, 0.0), (12, 0.06)])
def test_intervals_cover_what_they_should(seeds: int, skill: float) -> None:
    """`docs/statistics.md` has more settings, from more data sets; the error here is 0.013."""
    found = simulations.coverage(seeds, skill, repeats=300)
    assert 0.9 <= found.accuracy <= 0.98
    assert 0.92 <= found.difference <= 0.99
    assert found.over_seeds < found.accuracy + 0.02
    assert seeds == 3 or found.over_seeds < 0.9


@given(sizes, numbers)
@settings(max_examples=25)
def test_order_and_type_change_no_bit_and_swapping_the_arms_the_signs(
    size: tuple[int, int, float], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    ours, theirs = draw(generator, *size), draw(generator, *size)
    found = difference_interval(ours, theirs)
    images = generator.permutation(size[1])
    shuffled = generator.permutation(ours[:, images], axis=0)
    assert difference_interval(shuffled, theirs[:, images].astype(np.float32)) == found
    assert difference_interval(theirs, ours) == (-found.mean, -found.high, -found.low)
    assert accuracy_interval(shuffled)[2:] == accuracy_interval(ours)[2:]


@pytest.mark.parametrize("value", [True, False])
def test_trials_without_a_difference_leave_no_width(value: bool) -> None:
    same = np.full((3, 40), value)
    assert accuracy_interval(same) == Summary(float(value), 0.0, float(value), float(value))
    assert difference_interval(same, same[:2]) == Interval(0, 0, 0)


@pytest.mark.parametrize(
    "correct", [[], [[]], np.zeros((0, 5)), [0, 1], [[1], [1]], np.zeros((2, 2, 2)), [[0, 2]]]
)
def test_what_is_not_right_or_wrong_is_refused(correct: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"^correct: got .*, allowed: "):
        accuracy_interval(correct)
    with pytest.raises(ValueError, match=r"^theirs: got .*, allowed: "):
        difference_interval([[0, 1]], correct)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^theirs: got 3 images, allowed: 2, as ours$"):
        difference_interval([[0, 1]], [[0, 1, 1]])


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


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (3, 3), (4, 4), (2, 5), (5, 3)])
def test_permutation_floor_is_what_enumeration_finds(ours: int, theirs: int) -> None:
    values = 2.0 ** np.arange(ours + theirs)
    chosen = [list(one) for one in itertools.combinations(range(ours + theirs), ours)]
    effects = [values[one].mean() - np.delete(values, one).mean() for one in chosen]
    extreme = np.isclose(np.abs(effects), np.abs(effects).max())
    assert permutation_floor(ours, theirs) == extreme.mean()


def test_permutation_floor_refuses_no_seeds() -> None:
    with pytest.raises(ValueError, match=r"^seeds: got 0"):
        permutation_floor(3, 0)
