"""What a few seeds and one test set can show: means and differences with their intervals.

Numbers in, numbers out. Accuracies, differences and their intervals are fractions. Sums are exact
and rounded once, so that they depend neither on an order nor on the processor, NumPy or libm.
What these intervals give on simulated data is in `docs/statistics.md`.
"""

import math
from fractions import Fraction
from statistics import mean, stdev
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

# Student's t quantile; scipy.stats is slow to import. Its last digits may differ between versions
# and processors: an error of 1e-13 at most, where reports keep five decimals.
from scipy.special import stdtrit

Verdict = Literal["better", "worse", "no difference shown"]

UPPER = 0.975  # the quantile at the upper end of a 95 % interval


class Summary(NamedTuple):
    """A mean over seeds with its spread; of a single seed only the mean is known."""

    mean: float
    std: float | None
    low: float | None
    high: float | None


UNKNOWN = Summary(math.nan, None, None, None)
"""Of values of which one is missing."""


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


class Variance(NamedTuple):
    """What seeds, images and the noise of a seed on an image each add to a variance; a sum."""

    seeds: Fraction
    images: Fraction
    rest: Fraction


def mean_interval(values: npt.ArrayLike) -> Summary:
    """Mean over seeds, standard deviation and Student t 95 % interval of the mean.

    Parameters
    ----------
    values
        float (seeds,), in any unit.

    Returns
    -------
    Summary
        In the unit of `values`; the standard deviation has divisor n - 1, and both it and the mean
        are correctly rounded. With one seed all but the mean are None: one run says nothing of the
        next.

    Raises
    ------
    ValueError
        If `values` is empty, not one-dimensional or not finite.
    """
    x = finite(values, "values", dimensions=1)
    centre = mean(x.tolist())
    if x.size == 1:
        return Summary(centre, None, None, None)
    std = stdev(x.tolist())
    half = float(stdtrit(x.size - 1, UPPER)) * std / math.sqrt(x.size)
    return Summary(centre, std, centre - half, centre + half)


def pigeonhole_bootstrap(differences: npt.ArrayLike) -> Interval:
    """Accuracy difference of two variants with its 95 % interval over seeds and test images.

    Parameters
    ----------
    differences
        int8 or float (seeds, images): correct_A - correct_B (so -1, 0 or 1) of the two trials with
        seed s on test image i.

    Returns
    -------
    Interval
        Of the difference expected over all seeds and all images of which these are a sample. A
        single seed cannot speak for others: then images alone are resampled, and the interval is
        of that seed's difference.

    Raises
    ------
    ValueError
        If `differences` is empty, not two-dimensional or not finite.

    Notes
    -----
    Seeds and images are drawn with replacement, independently (Owen 2007), infinitely often: only
    the variance of the resampled means is needed, and `resampled_variance` gives it without drawing
    any. Their percentiles cannot be trusted with so few seeds: n resampled seeds spread
    sqrt((n-1)/n) too little, and a spread estimated from n values calls for Student's t. So the
    variance that seeds hold is first multiplied by n/(n-1), which is to move the seed means apart
    by sqrt(n/(n-1)), and the interval is mean ± t · SD of the resampled means (the "t
    interval with bootstrap standard error" of Hesterberg 2015), with (n-1) / share² degrees of
    freedom where the seeds hold that share of the variance (Satterthwaite 1946). Where seeds are
    all the noise this is the t interval of `mean_interval`; where images are, the Normal one. The
    noise of a seed on an image is counted nearly three times over, as resampling both ways must,
    which leaves the interval cautious.

    Its coverage on simulated data is in `docs/statistics.md`.

    References
    ----------
    Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 386-411.
    Hesterberg 2015, "What teachers should know about the bootstrap", American Statistician 69(4).
    Satterthwaite 1946, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2(6). Bouthillier et al. 2021, "Accounting for variance in machine learning
    benchmarks", arXiv 2103.03098.
    """
    data = finite(differences, "differences", dimensions=2)
    seeds = len(data)
    drawn = resampled_variance(data)
    of_seeds = drawn.seeds * Fraction(seeds, seeds - 1) if seeds > 1 else Fraction(0)
    variance = of_seeds + drawn.images + drawn.rest
    share = float(of_seeds / variance) if variance > 0 else 0.0
    freedom = (seeds - 1) / share / share if share > 0 else math.inf
    half = float(stdtrit(freedom, UPPER)) * math.sqrt(variance)
    centre = mean(data.ravel().tolist())
    return Interval(centre, centre - half, centre + half)


def resampled_variance(values: npt.ArrayLike) -> Variance:
    """Variance of the mean when rows and columns are both drawn with replacement.

    Parameters
    ----------
    values
        float (seeds, images).

    Returns
    -------
    Variance
        Exact, in the unit of `values`, squared. The variance is the sum of the three.

    Raises
    ------
    ValueError
        If `values` is empty, not two-dimensional or not finite.

    Notes
    -----
    Row r is drawn N_r times and column c M_c times, multinomial and independent, so that
    E[N_r N_s] = 1 - 1/R + [r = s] for R rows, and alike for C columns. Summing the mean's square
    over all pairs of cells leaves V_rows / R + V_columns / C + V_rest / (R C), with V the mean
    squares (divisor: the number of terms) of row means, of column means and of what the two leave,
    each around the mean (Owen 2007). (20, 10000) take 0.2 s.

    References
    ----------
    Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 386-411.
    """
    data = finite(values, "values", dimensions=2)
    rows, columns = data.shape
    # Floats are whole numbers over powers of two, of which the largest is common to all.
    ratios = [value.as_integer_ratio() for value in data.ravel().tolist()]
    unit = max(denominator for _, denominator in ratios)
    whole = [numerator * (unit // denominator) for numerator, denominator in ratios]
    table = np.array(whole, dtype=object).reshape(data.shape)
    total = sum(whole)
    # Each V times (R C unit) squared.
    of_rows = rows * sum(n * n for n in table.sum(axis=1)) - total**2
    of_columns = columns * sum(n * n for n in table.sum(axis=0)) - total**2
    rest = data.size * sum(n * n for n in whole) - total**2 - of_rows - of_columns
    scale = (data.size * unit) ** 2
    return Variance(
        Fraction(of_rows, rows * scale),
        Fraction(of_columns, columns * scale),
        Fraction(rest, data.size * scale),
    )


def verdict(low: float, high: float) -> Verdict:
    """Say what an interval of the difference A - B shows about A relative to B.

    Raises
    ------
    ValueError
        If `low` is above `high` or either is NaN.
    """
    if not low <= high:
        raise ValueError(f"interval: got {low} to {high}, allowed: low at most high")
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "no difference shown"


def sign_flip_floor(seeds: int) -> float:
    """Give the smallest p a two-sided sign-flip test over n paired seeds can reach: 2 / 2**n.

    Of the 2**n ways to flip the signs of n differences, two are at least as extreme as the data
    where all signs agree. Three seeds stop at 0.25; below 0.05 takes six.

    Raises
    ------
    ValueError
        If `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}, allowed: 1 or more")
    return 2.0 ** (1 - seeds)


def finite(values: npt.ArrayLike, name: str, dimensions: int) -> npt.NDArray[np.float64]:
    """Take values as a float64 array, or raise a `ValueError` that names them.

    They have to be finite, none missing, in an array of so many dimensions, none of them empty.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(
            f"{name}: shape {array.shape}, allowed: {dimensions} dimension(s), none of them empty"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: got NaN or infinity, allowed: finite numbers")
    return array
