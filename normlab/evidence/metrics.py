"""Measures of predictions: calibration, confusion, how soon they are good enough and how fast."""

import math

import numpy as np
import numpy.typing as npt

from normlab.evidence.intervals import finite


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15
) -> float:
    """Measure how far the top probability is from the accuracy it promises (ECE).

    The mean over images of |accuracy - mean top probability| in the image's bin; bin m of n takes
    top probabilities in ((m-1)/n, m/n]. Guo et al. 2017, "On calibration of modern neural
    networks", arXiv 1706.04599, equation 3.

    Parameters
    ----------
    probabilities
        float (images, classes), each from 0 to 1.
    labels
        int (images,), the true classes.
    bins
        How many bins divide [0, 1].

    Returns
    -------
    float
        From 0 (calibrated) to 1.

    Raises
    ------
    ValueError
        If an array is empty, of the wrong shape or out of range, or `bins` is below 1.
    """
    p = finite(probabilities, "probabilities", dimensions=2)
    truth = np.asarray(labels)
    if truth.shape != p.shape[:1]:
        raise ValueError(f"labels: shape {truth.shape}, allowed: {p.shape[:1]}")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities: got {p.min()} to {p.max()}, allowed: 0 to 1")
    if bins < 1:
        raise ValueError(f"bins: got {bins}, allowed: 1 or more")
    confidence = p.max(axis=1)
    excess = (p.argmax(axis=1) == truth) - confidence
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    gaps = [abs(math.fsum(excess[bin_of == number])) for number in range(bins)]
    return math.fsum(gaps) / len(p)


def confusion_matrix(
    true: npt.ArrayLike, predicted: npt.ArrayLike, classes: int = 10
) -> npt.NDArray[np.int64]:
    """Count the images of each true class (row) by predicted class (column).

    Parameters
    ----------
    true, predicted
        int (images,), from 0 to classes - 1.
    classes
        How many classes there are.

    Returns
    -------
    numpy.ndarray
        int64 (classes, classes).

    Raises
    ------
    ValueError
        If the two shapes differ or are not (images,), or a class is out of range.
    """
    pair = (np.asarray(true), np.asarray(predicted))
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        shapes = f"{pair[0].shape} and {pair[1].shape}"
        raise ValueError(f"true and predicted: shapes {shapes}, allowed: (images,), the same")
    for values in pair:
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"true and predicted: got {values.min()} to {values.max()}, "
                f"allowed: 0 to {classes - 1}"
            )
    cells = np.ravel_multi_index(pair, (classes, classes))
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def epochs_to_reach(values: npt.ArrayLike, threshold: float) -> float:
    """Find how many epochs it takes until a value is at least `threshold`.

    Parameters
    ----------
    values
        float (epochs,), such as validation accuracies after each epoch.
    threshold
        In the unit of `values`.

    Returns
    -------
    float
        Between two epochs, where a straight line from one value to the next gets there. At least 1:
        nothing is known of the time before the first epoch's end. NaN where it is never reached.
    """
    x = finite(values, "values", dimensions=1)
    reached = np.flatnonzero(x >= threshold)
    if not reached.size:
        return math.nan
    after = int(reached[0])
    if after == 0:
        return 1.0
    return after + float((threshold - x[after - 1]) / (x[after] - x[after - 1]))


def mean_log(values: npt.ArrayLike) -> float:
    """Mean of the natural logarithms of a loss, float (epochs,) above 0: how fast it falls.

    An epoch that halves the loss counts the same early and late, so no threshold has to be chosen.
    """
    x = finite(values, "values", dimensions=1)
    if x.min() <= 0:
        raise ValueError(f"values: got {x.min()}, allowed: above 0")
    return math.fsum(map(math.log, x.tolist())) / x.size
