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


class MeanSquares(NamedTuple):
    """Of a table of seeds by images: between seeds, between images, and of what both leave."""

    seeds: Fraction
    images: Fraction
    rest: Fraction


class Part(NamedTuple):
    """An independent part of an estimated variance, with the degrees of freedom it is known by."""

    variance: Fraction
    freedom: int


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


def accuracy_interval(correct: npt.ArrayLike) -> Summary:
    """Accuracy of an arm with its 95 % interval over seeds and images.

    Parameters
    ----------
    correct
        bool (seeds, images): whether the trial with seed s is right about image i.

    Returns
    -------
    Summary
        The mean and the standard deviation of the seeds' accuracies, and the interval of the
        accuracy expected over all seeds and all images of which these are a sample. With one seed
        all but the mean are None: one run says nothing of the next.

    Raises
    ------
    ValueError
        If `correct` is not two-dimensional, has no seed, fewer than two images or other values
        than 0 and 1.

    Notes
    -----
    Seeds and images are random effects, crossed: y = mean + seed + image + rest. The variance of
    the mean is (MS_seeds + MS_images - MS_rest) / (seeds * images), where what images add is not
    less than nothing, so that the interval is never narrower than Student's over seeds. It is
    mean ± t · SD with the degrees of freedom of Satterthwaite 1946. Its coverage on simulated data
    is in `docs/statistics.md`.

    References
    ----------
    Searle, Casella and McCulloch 1992, "Variance components", chapter 4. Satterthwaite 1946, "An
    approximate distribution of estimates of variance components", Biometrics Bulletin 2(6).
    """
    data = _right(correct, "correct")
    seeds, images = data.shape
    centre = Fraction(int(data.sum()), data.size)
    if seeds == 1:
        return Summary(float(centre), None, None, None)
    found = mean_squares(data)
    rest = -found.rest, (seeds - 1) * (images - 1)
    of_images = [Part(found.images, images - 1), Part(*rest)]
    low, high = _ends(centre, [Part(found.seeds, seeds - 1)], of_images, data.size)
    return Summary(float(centre), stdev((data.sum(axis=1) / images).tolist()), low, high)


def difference_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> Interval:
    """Accuracy difference of two arms with its 95 % interval over seeds and images.

    Parameters
    ----------
    ours, theirs
        bool (seeds, images), each arm's as for `accuracy_interval`: the same images, seeds of
        their own.

    Returns
    -------
    Interval
        Of the difference expected over all seeds and all images of which these are a sample. A
        single seed cannot speak for others: where an arm has no more, the interval is over images
        alone, and of the difference of these trials.

    Raises
    ------
    ValueError
        As `accuracy_interval`, and if the numbers of images differ.

    Notes
    -----
    Images are common to both arms, seeds are not. So each arm's seeds add their mean square to
    the variance, as in `accuracy_interval`, and images what the image-wise differences spread
    beyond what each arm's own rest explains, again not less than nothing.
    """
    a, b = _right(ours, "ours"), _right(theirs, "theirs")
    images = a.shape[1]
    if b.shape[1] != images:
        raise ValueError(f"theirs: got {b.shape[1]} images, allowed: {images}, as ours")
    centre = Fraction(int(a.sum()), a.size) - Fraction(int(b.sum()), b.size)
    # Each image's difference, times both numbers of seeds.
    whole = len(b) * a.sum(axis=0) - len(a) * b.sum(axis=0)
    spread = Fraction(
        images * int((whole**2).sum()) - int(whole.sum()) ** 2,
        images * (images - 1) * (len(a) * len(b)) ** 2,
    )
    of_images, of_seeds = [Part(spread, images - 1)], []
    for arm in (a, b) if min(len(a), len(b)) > 1 else ():
        found, seeds = mean_squares(arm), len(arm)
        of_seeds.append(Part(found.seeds / seeds, seeds - 1))
        of_images.append(Part(-found.rest / seeds, (seeds - 1) * (images - 1)))
    return Interval(float(centre), *_ends(centre, of_seeds, of_images, images))


def mean_squares(table: npt.NDArray[np.int64]) -> MeanSquares:
    """Mean squares of a two-way table without replication; exact.

    Parameters
    ----------
    table
        int64 (seeds, images), at least two of each.
    """
    rows, columns = table.shape
    total = int(table.sum()) ** 2
    # Sums of squares, times the number of cells.
    of_rows = rows * int((table.sum(axis=1) ** 2).sum()) - total
    of_columns = columns * int((table.sum(axis=0) ** 2).sum()) - total
    rest = table.size * int((table**2).sum()) - total - of_rows - of_columns
    return MeanSquares(
        Fraction(of_rows, (rows - 1) * table.size),
        Fraction(of_columns, (columns - 1) * table.size),
        Fraction(rest, (rows - 1) * (columns - 1) * table.size),
    )


def _ends(
    centre: Fraction, of_seeds: list[Part], of_images: list[Part], count: int
) -> tuple[float, float]:
    """Place the ends of an interval, its variance being all parts' over a count.

    Those of images are left out where their sum is below nothing.
    """
    added = sum(part.variance for part in of_images) > 0
    parts = [*of_seeds, *(of_images if added else [])]
    total = sum(part.variance for part in parts)
    squares = sum(part.variance**2 / part.freedom for part in parts)
    freedom = float(total**2 / squares) if squares else math.inf
    half = float(stdtrit(freedom, UPPER)) * math.sqrt(total / count)
    return float(centre) - half, float(centre) + half


def _right(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 2 or len(array) < 1 or array.shape[1] < 2:
        allowed = "(seeds, images), a seed and two images or more"
        raise ValueError(f"{name}: got shape {array.shape}, allowed: {allowed}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: got other values than 0 and 1, allowed: these")
    return array.astype(np.int64)


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


def permutation_floor(ours: int, theirs: int) -> float:
    """Give the smallest p a two-sided permutation test of two arms' seeds can reach.

    Of the C(n + m, n) ways to share n + m trials out to arms of n and m, the data's own is at least
    as extreme as the data, and with n = m its mirror image too. Three seeds against three stop at
    0.1; below 0.05 takes four.

    Raises
    ------
    ValueError
        If either is below 1.
    """
    if min(ours, theirs) < 1:
        raise ValueError(f"seeds: got {min(ours, theirs)}, allowed: 1 or more")
    return (1 + (ours == theirs)) / math.comb(ours + theirs, ours)


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
