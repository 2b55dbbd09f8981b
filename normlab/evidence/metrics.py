"""Measures of predictions: calibration, confusion, how soon they are good enough."""

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


def first_epoch_reaching(values: npt.ArrayLike, threshold: float) -> int | None:
    """Find the first epoch, counted from 1, whose value is at least `threshold`.

    Parameters
    ----------
    values
        float (epochs,), such as validation accuracies.
    threshold
        In the unit of `values`.

    Returns
    -------
    int or None
        None where no epoch reaches it.
    """
    reached = np.flatnonzero(np.asarray(values) >= threshold)
    return int(reached[0]) + 1 if reached.size else None
