"""Which training images a trial learns from, and which are set aside for validation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.errors import InputError

VALIDATION_SEED = 20_120_101


class Part(NamedTuple):
    """Which images are for what, as `train_val_split` divides them."""

    val_size: int
    train_size: int | None = None
    fold: int = 0


def train_val_split(
    labels_count: int, val_size: int, train_size: int | None, fold: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the training images into those trained on and those validated on.

    Both are slices of one permutation with a fixed seed: the first `val_size` validate and the
    next `train_size` train. So the validation images depend on `val_size` alone, and a smaller
    training set is the beginning of a larger one. In another `fold` the permutation begins
    `fold` * `val_size` images later, and ends with those before: each fold validates on others.

    Parameters
    ----------
    labels_count : int
        How many training images there are.
    val_size : int
        How many to set aside for validation.
    train_size : int or None
        How many of the others to train on; None for all.
    fold : int
        Which slice of `val_size` images validates, counted from 0.

    Returns
    -------
    train, val : numpy.ndarray
        int64 indices, shapes (train_size,) and (val_size,), in the order of the permutation.

    Raises
    ------
    InputError
        If either would be empty or there are not enough images.
    """
    if not 1 <= val_size < labels_count:
        raise InputError(f"val_size: got {val_size}, allowed: from 1 to {labels_count - 1}")
    rest = labels_count - val_size
    if train_size is not None and not 1 <= train_size <= rest:
        raise InputError(
            f"train_size: got {train_size}, allowed: null or from 1 to {rest} "
            f"({labels_count} images less a val_size of {val_size})"
        )
    folds = labels_count // val_size
    if not 0 <= fold < folds:
        raise InputError(
            f"fold: got {fold}, allowed: from 0 to {folds - 1} ({labels_count} images, {val_size} "
            "in each)"
        )
    indices = np.arange(labels_count, dtype=np.int64)
    order = np.random.default_rng(VALIDATION_SEED).permutation(indices)
    order = np.roll(order, -fold * val_size)
    return order[val_size:][:train_size], order[:val_size]
