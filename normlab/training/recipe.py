"""What a trial is made of: its recipe, its data, and its state after every epoch."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.data import augment
from normlab.network.architecture import REFERENCE, Architecture
from normlab.network.engine import Arrays


@dataclass(frozen=True)
class Recipe:
    """All that decides how a variant's trials go, except the seed and the data."""

    variant: str
    norm_params: dict[str, Any]
    """Of the variant's normalization, and what else `networks.build` is told."""
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    lr_schedule: str
    lr_step_epochs: int
    lr_step_factor: float
    l1_lambda: float | None
    """None for a variant without the penalty."""
    augmentation: augment.Ranges
    device: str
    precision: str
    architecture: Architecture = REFERENCE
    """Of the network, as the data ask for it."""


class Images(NamedTuple):
    """Images, (n, s, s) uint8, and their labels, (n,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class Data(NamedTuple):
    """Training and validation images, (n, s, s) uint8, and their labels, (n,) uint8."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    val_images: NDArray[np.uint8]
    val_labels: NDArray[np.uint8]


@dataclass(frozen=True)
class State:
    """A trial after `epoch` epochs: all that the next epoch needs, and this one's history row."""

    seed: int
    epoch: int
    weights: Arrays
    momentum: Arrays
    row: dict[str, Any]


class Draws(NamedTuple):
    """What an epoch draws at random."""

    order: NDArray[np.int64]
    """(n,): which training image comes when."""
    maps: NDArray[np.float32]
    """(n, 2, 3): an affine map for each, in that order."""


class Epoch(NamedTuple):
    """What an epoch leaves: weights and momentum by name, and its measures.

    Losses are in nats, without a penalty; accuracies are fractions.
    """

    weights: Arrays
    momentum: Arrays
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1."""
    done, rate = epoch - 1, recipe.lr
    if recipe.lr_schedule == "step":
        for _ in range(done // recipe.lr_step_epochs):
            rate *= recipe.lr_step_factor
    if recipe.lr_schedule == "cosine":
        _, cos = augment.sin_cos(180 * done / recipe.epochs)
        rate *= (1 + float(cos)) / 2
    return rate
