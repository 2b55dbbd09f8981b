"""What the seeds of a study can show: intervals, tests, and the price of asking many questions.

Numbers in, numbers out. All arms of a study run the same seeds, so differences are paired by seed.

Sums are exact, of data or of whole numbers in their place, so that they depend neither on an order
nor on the processor, NumPy or libm. Random numbers are whole ones, whose streams NumPy has kept.
"""

import math
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import ndtr, stdtrit
from statsmodels.stats.multitest import multipletests

from normlab.evidence.intervals import UPPER, Interval, finite, sign_flip_floor

TIE = 2.0**-30  # relative to the data: means and sums no further apart than this are equal
STEPS = 2.0**40  # of the data in whole numbers: sums of 8,192 are exact in float64, in any order
FLIPS = 2**16  # every flip of up to 16 signs


class Trend(NamedTuple):
    """The p-value of a trend, and whether it rises or falls over the arms."""

    p: float
    rising: bool


def paired_interval(differences: npt.ArrayLike, resamples: int = 10_000, *, seed: int) -> Interval:
    """Mean paired difference with its 95 % bootstrap interval over seeds.

    Parameters
    ----------
    differences
        float (seeds,), in any unit: one difference of two arms per seed.
    resamples
        How many times seeds are drawn anew.
    seed
        Of the drawing: the same input gives the same output, bit for bit.

    Returns
    -------
    Interval
        In the unit of `differences`. It has no width where all differences are equal, and never
        leaves their range.

    Raises
    ------
    ValueError
        If `differences` is not one-dimensional, has fewer than two seeds or is not finite, or
        `resamples` is below 100.

    Notes
    -----
    The interval is bias-corrected and accelerated (BCa, Efron 1987), which lets its two ends differ
    in distance from the mean as the data are skewed. The mean of n resampled seeds spreads
    sqrt((n-1)/n) too little and has Normal tails where Student's are due, so each tail is taken at
    Phi(-sqrt(n/(n-1)) t) instead of 0.025, with t the 0.975 quantile of n - 1 degrees of freedom:
    the expanded level that Hesterberg 2015 gives for percentile intervals.

    Its coverage on simulated data, and that of Student's t, is in `docs/statistics.md`: few seeds
    leave it too narrow, even so.

    References
    ----------
    Efron 1987, "Better bootstrap confidence intervals", Journal of the American Statistical
    Association 82(397), 171-185. Hesterberg 2015, "What teachers should know about the bootstrap",
    American Statistician 69(4), 371-386.
    """
    x = finite(differences, "differences", dimensions=1)
    if x.size < 2:
        raise ValueError(f"differences: got {x.size} seed, allowed: 2 or more")
    if resamples < 100:
        raise ValueError(f"resamples: got {resamples}, allowed: 100 or more")
    centre, lowest, spread = mean(x.tolist()), x.min(), np.ptp(x)
    if spread == 0:
        return Interval(centre, centre, centre)
    widening = math.sqrt(x.size / (x.size - 1))
    tail = float(ndtr(-widening * stdtrit(x.size - 1, UPPER)))
    low, high = stats.bootstrap(
        (np.rint(STEPS * ((x - lowest) / spread)),),
        # In ties: BCa counts the resampled means that equal the mean, a reader asks if an end is 0.
        lambda values, axis: np.rint(values.sum(axis=axis) / (values.shape[axis] * STEPS * TIE)),
        n_resamples=resamples,
        confidence_level=1 - 2 * max(tail, TIE),  # of two seeds 1, where BCa is not defined
        method="BCa",
        vectorized=True,
        rng=seed,
    ).confidence_interval
    # The means are the same on any machine. What SciPy's Normal and t quantiles are off by, 1e-13
    # at most, moves the ends along a line from one mean to the next: by 1e-9 of their distance.
    return Interval(
        centre, float(lowest + spread * (TIE * low)), float(lowest + spread * (TIE * high))
    )


def sign_flip_test(differences: npt.ArrayLike) -> float:
    """Two-sided sign-flip test of paired differences: a permutation test of their mean.

    Parameters
    ----------
    differences
        float (seeds,), in any unit: one difference of two arms per seed.

    Returns
    -------
    float
        The share of the 2**n ways to flip the signs of n differences that give a mean at least as
        far from 0, the data's own included: `sign_flip_floor` or more. Above 16 seeds it is
        estimated from 65,536 random flips, the same in every call.

    Raises
    ------
    ValueError
        If `differences` is empty, not one-dimensional or not finite.

    Notes
    -----
    Exact if the differences are symmetric about 0 under the null hypothesis, as they are where the
    labels of the two arms could be exchanged within a seed (Fisher 1935). Accuracies come in
    steps, so distinct flips often have equal means, and 0.9931 - 0.9924 is not quite
    0.9932 - 0.9925; means that differ by less than a billionth of the largest absolute difference
    count as equal.

    References
    ----------
    Fisher 1935, "The design of experiments", section 21. Phipson and Smyth 2010 (see `trend_test`)
    for the random flips.
    """
    x = finite(differences, "differences", dimensions=1)
    if x.size == 1:
        return sign_flip_floor(1)
    largest = np.abs(x).max()
    if largest == 0:
        return 1.0
    whole = np.rint(STEPS * (x / largest))
    least = abs(whole.sum()) - x.size * STEPS * TIE

    def as_extreme(flipped: npt.NDArray[np.float64], axis: int) -> Any:
        return (np.abs(flipped.sum(axis=axis)) >= least).astype(np.float64)

    test = stats.permutation_test(
        (whole,),
        as_extreme,
        permutation_type="samples",
        alternative="greater",
        n_resamples=FLIPS,
        vectorized=True,
        rng=0,
    )
    return float(test.pvalue)


def trend_test(values: npt.ArrayLike, resamples: int = 10_000, *, seed: int) -> Trend:
    """Two-sided permutation test for a trend over ordered arms: Page's L.

    Parameters
    ----------
    values
        float (seeds, arms), in any unit, arms in their order.
    resamples
        How many times the arms are permuted within each seed.
    seed
        Of the permutations: the same input gives the same output, bit for bit.

    Returns
    -------
    Trend
        p from 2 / (1 + resamples) to 1. Ranks decide which way the trend goes, so that it can rise
        where `fitted_change` falls: when values climb step by step and collapse at the end.

    Raises
    ------
    ValueError
        If `values` is empty, not two-dimensional or not finite, has fewer than two arms, or
        `resamples` is below 1.

    Notes
    -----
    L is the sum over arms of position times rank sum, ranks being taken within each seed, so
    that whatever shifts all of a seed's values has no effect (Page 1963). Equal values share their
    mean rank, in the data as in the permutations. A one-sided p is (1 + the permutations at least
    as extreme) / (1 + all permutations), which is never too small (Phipson and Smyth 2010); p is
    twice the smaller of the two. `scipy.stats.page_trend_test` is one-sided, and its null
    distribution knows no ties. 10,000 resamples of (10, 6) take 20 ms.

    References
    ----------
    Page 1963, "Ordered hypotheses for multiple treatments: a significance test for linear ranks",
    Journal of the American Statistical Association 58(301), 216-230. Phipson and Smyth 2010,
    "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular
    Biology 9(1), article 39.
    """
    data = _arms(values)
    if resamples < 1:
        raise ValueError(f"resamples: got {resamples}, allowed: 1 or more")
    ranks = 2 * stats.rankdata(data, axis=1)  # whole numbers: sums are exact, ties too
    positions = np.arange(1, data.shape[1] + 1)
    observed = (ranks @ positions).sum()
    generator = np.random.default_rng(seed)
    permuted = generator.permuted(np.broadcast_to(ranks, (resamples, *ranks.shape)), axis=2)
    drawn = permuted.sum(axis=1) @ positions
    above, below = int((drawn >= observed).sum()), int((drawn <= observed).sum())
    p = min(1.0, 2 * (1 + min(above, below)) / (1 + resamples))
    return Trend(p, rising=above < below)


def fitted_change(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Change from the first to the last arm, by each seed's least-squares line.

    Parameters
    ----------
    values
        float (seeds, arms), in any unit, arms in their order. The line is over their
        positions 0, 1, ..., whatever their spacing.

    Returns
    -------
    numpy.ndarray
        float64 (seeds,), in the unit of `values`.

    Raises
    ------
    ValueError
        If `values` is empty, not two-dimensional or not finite, or has fewer than two arms.
    """
    data = _arms(values)
    last = data.shape[1] - 1
    centred = 2 * np.arange(last + 1) - last  # twice the distance from the middle: whole numbers
    factor = 2 * last / int((centred**2).sum())
    return np.array([factor * math.fsum(row) for row in data * centred])


def holm(p_values: npt.ArrayLike) -> list[float]:
    """Adjust the p-values of a family of tests so that any false finding is rare (Holm 1979).

    Parameters
    ----------
    p_values
        float (tests,), each from 0 to 1.

    Returns
    -------
    list of float
        Adjusted p-values in the same order; empty for an empty family. To call those at most 0.05
        findings is to err with probability at most 0.05 in the whole family, however the tests
        depend on each other.

    Raises
    ------
    ValueError
        If `p_values` is not one-dimensional or any is not from 0 to 1.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6(2), 65-70.
    """
    if np.shape(p_values) == (0,):
        return []
    p = finite(p_values, "p_values", dimensions=1)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values: got {p.min()} to {p.max()}, allowed: 0 to 1")
    return [float(adjusted) for adjusted in multipletests(p, method="holm")[1]]


def smallest_p(seeds: int, tests: int) -> float:
    """Give the smallest Holm-adjusted p of two-sided sign-flip tests over n paired seeds.

    For the smallest p of the family: min(1, tests * 2 / 2**n). Thirteen tests of nine seeds stop
    at 0.0508, and no difference, however large, can be shown at 0.05; that takes ten.

    Raises
    ------
    ValueError
        If `seeds` or `tests` is below 1.
    """
    if tests < 1:
        raise ValueError(f"tests: got {tests}, allowed: 1 or more")
    return min(1.0, tests * sign_flip_floor(seeds))


def _arms(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    data = finite(values, "values", dimensions=2)
    if data.shape[1] < 2:
        raise ValueError(f"values: got {data.shape[1]} arm, allowed: 2 or more")
    return data
