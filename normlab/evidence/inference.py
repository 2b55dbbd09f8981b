"""What the seeds of a study can show: contrasts of arms, their intervals and their tests.

Numbers in, numbers out. Each arm has seeds of its own, as many as it likes.

Sums are exact, of data or of whole numbers in their place, so that they depend neither on an order
nor on the processor, NumPy or libm. Random numbers are whole ones, whose streams NumPy has kept.
What these intervals and tests give on simulated data is in `docs/statistics.md`.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import combinations
from statistics import mean, variance
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

# scipy.stats' own functions of these are slow. Their last digits may differ between versions and
# processors: an error of 1e-13 at most, where tables keep six digits.
from scipy.special import stdtr, stdtrit

from normlab.evidence.intervals import finite

Floats = npt.NDArray[np.float64]

STEPS = 2.0**36
"""Of the data in whole numbers: sums of up to 256 seeds, weighted by as many, are exact."""
ALL_WAYS = 200_000
"""To share trials out: those of ten seeds and ten. More are drawn at random."""
DRAWS = 99_999
MOST_SEEDS = 100_000


class Arm(NamedTuple):
    """What an arm adds to a contrast: weight² times its variance, known from so many seeds."""

    spread: float
    seeds: int


class Contrast(NamedTuple):
    """A weighted sum of arms' means."""

    effect: float
    arms: tuple[Arm, ...]

    @property
    def error(self) -> float:
        """Standard error of the effect."""
        return math.sqrt(math.fsum(arm.spread / arm.seeds for arm in self.arms))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of that error (Welch 1947); infinite where nothing spreads."""
        parts = [(arm.spread / arm.seeds, arm.seeds - 1) for arm in self.arms]
        total = math.fsum(part for part, _ in parts)
        squares = math.fsum(part**2 / freedom for part, freedom in parts)
        return total**2 / squares if squares else math.inf


class P(NamedTuple):
    """A p-value, and its standard error where ways were drawn at random, else 0."""

    value: float
    error: float


class Trend(NamedTuple):
    """The p-value of a trend, and whether it rises or falls over the arms."""

    p: P
    rising: bool


def contrast(arms: Sequence[npt.ArrayLike], weights: Sequence[float]) -> Contrast:
    """Sum up arms' means, each times its weight.

    Parameters
    ----------
    arms
        Of each, float (seeds,), in any unit: a value per seed.
    weights
        One per arm; those of a difference are 1 and -1.

    Raises
    ------
    ValueError
        If there is no arm, or one has fewer than two seeds, is not one-dimensional or not finite.
    """
    values = _arms(arms, least=1)
    return Contrast(
        math.fsum(w * mean(x.tolist()) for x, w in zip(values, weights, strict=True)),
        tuple(
            Arm(w**2 * variance(x.tolist()), x.size) for x, w in zip(values, weights, strict=True)
        ),
    )


def interval(found: Contrast, level: float) -> tuple[float, float]:
    """Give the ends of a contrast's interval at a level of confidence, such as 0.95.

    Student's t with Welch's degrees of freedom. At 1 - 0.05 / m, m such intervals all hold their
    effects with 95 % (Bonferroni), however they depend on each other. An interval has no width
    where no arm's values spread.

    References
    ----------
    Welch 1947, "The generalization of 'Student's' problem when several different population
    variances are involved", Biometrika 34(1/2), 28-35. Satterthwaite 1946, "An approximate
    distribution of estimates of variance components", Biometrics Bulletin 2(6), 110-114.
    """
    half = _half_width(found, level)
    return found.effect - half, found.effect + half


def welch_test(found: Contrast, null: float = 0.0) -> float:
    """Give the two-sided p of a contrast's effect being `null`: 0.05 where `interval` at 0.95 ends.

    Where no arm's values spread it is 1 if the effect is just that, and else 0.
    """
    if found.error == 0:
        return float(found.effect == null)
    return float(2 * stdtr(found.freedom, -abs(found.effect - null) / found.error))


def seeds_needed(found: Contrast, half_width: float, level: float) -> int | None:
    """Say how many seeds an arm make an interval reach less than this to either side.

    If the arms' values go on to spread as they do now. None where 100,000 would not do.
    """

    def settles(seeds: int) -> bool:
        arms = tuple(Arm(arm.spread, seeds) for arm in found.arms)
        return _half_width(found._replace(arms=arms), level) < half_width

    if not settles(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high


def permutation_test(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, seed: int = 0) -> P:
    """Two-sided permutation test of the difference of two arms' means.

    Parameters
    ----------
    ours, theirs
        float (seeds,), in any unit; the arms' numbers of seeds may differ.
    seed
        Of the drawing: the same input gives the same output, bit for bit.

    Returns
    -------
    P
        The share of the ways to share all trials out to arms of these sizes that give means at
        least as far apart, the data's own included. All ways are tried up to 200,000; of more,
        99,999 are drawn, and p is (1 + those as extreme) / 100,000, which is never too small
        (Phipson and Smyth 2010).

    Raises
    ------
    ValueError
        If an arm has fewer than two seeds, is not one-dimensional or not finite.

    Notes
    -----
    Exact if trials could be exchanged between the arms, that is, if the normalization does nothing
    to the distribution (Fisher 1935). Accuracies come in steps, so distinct ways often have equal
    means, and 0.9931 - 0.9924 is not quite 0.9932 - 0.9925; means that differ by less than a
    ten-billionth or so of the data's range count as equal.

    References
    ----------
    Fisher 1935, "The design of experiments", section 21. Phipson and Smyth 2010, "Permutation
    p-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9(1),
    article 39.
    """
    a, b = _arms([ours, theirs], least=2)
    values, size = _whole(np.concatenate([a, b])), a.size
    ways = math.comb(values.size, size)
    if ways <= ALL_WAYS:
        sums = values[_ways(values.size, size)].sum(axis=1)
    else:
        sums = _shuffled(values, DRAWS, seed)[:, :size].sum(axis=1)
    # Times both numbers of seeds, the difference of means is a whole number.
    apart = np.abs(values.size * sums - size * values.sum())
    least = abs(values.size * values[:size].sum() - size * values.sum())
    extreme = int((apart >= least - values.size**2).sum())
    if ways <= ALL_WAYS:
        return P(extreme / ways, 0.0)
    return _drawn(extreme, DRAWS)


def trend_test(arms: Sequence[npt.ArrayLike], draws: int = DRAWS, *, seed: int = 0) -> Trend:
    """Two-sided permutation test for a trend over ordered arms: Cuzick's.

    Parameters
    ----------
    arms
        Of each arm in their order, float (seeds,), in any unit.
    draws
        How many permutations of all trials are drawn.
    seed
        Of the permutations: the same input gives the same output, bit for bit.

    Returns
    -------
    Trend
        p from 2 / (1 + draws) to 1. Ranks decide which way the trend goes, so that it can rise
        where the ends fall: when values climb arm by arm and collapse at the last.

    Raises
    ------
    ValueError
        If there are fewer than two arms, one has fewer than two seeds, is not one-dimensional or
        not finite, or `draws` is below 1.

    Notes
    -----
    The statistic is the sum over trials of the arm's position times the trial's rank among all
    (Cuzick 1985). Equal values share their mean rank, in the data as in the permutations. A
    one-sided p is (1 + the permutations at least as extreme) / (1 + draws); p is twice the smaller.

    References
    ----------
    Cuzick 1985, "A Wilcoxon-type test for trend", Statistics in Medicine 4(1), 87-90.
    """
    values = _arms(arms, least=2)
    if draws < 1:
        raise ValueError(f"draws: got {draws}, allowed: 1 or more")
    ranks = 2 * stats.rankdata(_whole(np.concatenate(values)))  # whole numbers: sums are exact
    positions = np.repeat(np.arange(len(values), dtype=np.float64), [x.size for x in values])
    drawn, observed = _shuffled(ranks, draws, seed) @ positions, ranks @ positions
    above, below = int((drawn >= observed).sum()), int((drawn <= observed).sum())
    one_sided = _drawn(min(above, below), draws)
    p = P(min(1.0, 2 * one_sided.value), 2 * one_sided.error)
    return Trend(p, rising=above < below)


def _half_width(found: Contrast, level: float) -> float:
    return float(stdtrit(found.freedom, (1 + level) / 2)) * found.error


@cache
def _ways(count: int, size: int) -> npt.NDArray[np.int64]:
    """Give all ways to choose so many of `count`; many claims compare arms of the same sizes."""
    return np.array(list(combinations(range(count), size)))


def _shuffled(values: Floats, draws: int, seed: int) -> Floats:
    return values[_orders(values.size, draws, seed)]


@lru_cache(maxsize=2)
def _orders(size: int, draws: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw orders of so many values; leaving out one trial after another asks for the same."""
    in_order = np.broadcast_to(np.arange(size, dtype=np.int64), (draws, size))
    return np.random.default_rng(seed).permuted(in_order, axis=1)


def _drawn(extreme: int, draws: int) -> P:
    p = (1 + extreme) / (1 + draws)
    return P(p, math.sqrt(p * (1 - p) / draws))


def _whole(values: Floats) -> Floats:
    """Write values as whole numbers from 0 to STEPS, in proportion."""
    spread = np.ptp(values)
    return np.rint(STEPS * ((values - values.min()) / spread)) if spread else 0 * values


def _arms(arms: Sequence[npt.ArrayLike], least: int) -> list[Floats]:
    if len(arms) < least:
        raise ValueError(f"arms: got {len(arms)}, allowed: {least} or more")
    values = [finite(arm, "arms", dimensions=1) for arm in arms]
    for arm in values:
        if arm.size < 2:
            raise ValueError(f"arms: got one of {arm.size} seed, allowed: 2 or more")
    return values
