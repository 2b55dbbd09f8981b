"""One trial: a variant trained with one seed, an epoch at a time.

An epoch is a pure function from state to state: all it draws comes from generators seeded with
(seed, purpose, epoch), so it does not matter where it runs, what runs beside it, or whether the
run was interrupted in between.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import engine, networks
from normlab.training import pytorch
from normlab.training.machine import Machine, resolve
from normlab.training.recipe import Data, Draws, Epoch, Recipe, State, learning_rate

INITIAL, ORDER, AUGMENTATION = range(3)
"""Purposes of random generators."""


def start(recipe: Recipe, seed: int) -> State:
    """State of a trial before its first epoch; the same seed starts all variants alike."""
    network = networks.build(recipe.variant, recipe.architecture, **recipe.norm_params)
    networks.initialize(network, _rng(seed, INITIAL))
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    return State(seed, 0, pytorch.arrays(network.state_dict()), pytorch.arrays(velocity), {})


def train_epoch(recipe: Recipe, state: State, data: Data) -> State:
    """Train for one epoch and measure the result on the validation images.

    The training loss and accuracy are means over the epoch's augmented images as they were
    learned from; no loss includes the L1 penalty.

    Raises
    ------
    InputError
        If the loss or a weight is no longer finite, or there is not enough memory for a batch.
    """
    torch.set_num_threads(1)
    machine = resolve(recipe)
    epoch = state.epoch + 1
    lr = learning_rate(recipe, epoch)
    draws = draw(recipe, state.seed, epoch, len(data.train_labels))
    train = _by_engine if machine.plan is not None else pytorch.train_epoch
    try:
        after = train(recipe, machine, lr, state, data, draws)
    except (MemoryError, torch.OutOfMemoryError):
        raise InputError(
            f"{recipe.variant}, seed {state.seed}, epoch {epoch}: not enough memory for a batch; "
            f"a smaller one needs less (batch_size is {recipe.batch_size})"
        ) from None
    _refuse_infinite(recipe, state.seed, epoch, after)
    row = history_row(recipe, state.seed, epoch, after)
    return State(state.seed, epoch, after.weights, after.momentum, row)


def draw(recipe: Recipe, seed: int, epoch: int, count: int) -> Draws:
    """Draw the order of `count` images in an epoch and their affine maps."""
    order = _rng(seed, ORDER, epoch).permutation(count)
    rng, side = _rng(seed, AUGMENTATION, epoch), recipe.architecture.side
    maps = augment.draw(rng, count, recipe.augmentation, side)
    return Draws(order, maps)


def history_row(recipe: Recipe, seed: int, epoch: int, after: Epoch) -> dict[str, Any]:
    """Sum up an epoch: a row of the history.

    Keys: seed, epoch, lr, train_loss, train_accuracy, val_loss, val_accuracy, for a variant with
    the penalty l1_penalty, and weights, their digest.
    """
    row: dict[str, Any] = {
        "seed": seed,
        "epoch": epoch,
        "lr": learning_rate(recipe, epoch),
        "train_loss": after.train_loss,
        "train_accuracy": after.train_accuracy,
        "val_loss": after.val_loss,
        "val_accuracy": after.val_accuracy,
    }
    if recipe.l1_lambda is not None:
        penalized = [after.weights[name] for name in after.momentum]
        row["l1_penalty"] = recipe.l1_lambda * l1_norm(penalized)
    row["weights"] = engine.fingerprint(after.weights)
    return row


def divergence(recipe: Recipe, state: State) -> str | None:
    """Say of a trial that has ended that it diverged though its numbers are finite, if it did.

    A network that learns nothing ends at the loss of guessing, of calling all classes equally
    likely, which is a result like another; one that ends a tenth above it has been driven away.
    """
    loss = max(state.row["train_loss"], state.row["val_loss"])
    guessing = math.log(recipe.architecture.classes)
    if loss <= 1.1 * guessing:
        return None
    return (
        f"{recipe.variant}, seed {state.seed}: diverged: its loss ends at {loss:.3g}, above the "
        f"{guessing:.2f} of guessing; most likely the learning rate is too high (lr is "
        f"{recipe.lr:g})"
    )


def l1_norm(arrays: list[NDArray[np.float32]]) -> float:
    """Σ|p| over all elements, rounded once: the same whatever their order."""
    return math.fsum(np.abs(np.concatenate([a.ravel() for a in arrays]), dtype=np.float64))


def _by_engine(
    recipe: Recipe, machine: Machine, lr: float, state: State, data: Data, draws: Draws
) -> Epoch:
    assert machine.plan is not None
    l1 = recipe.l1_lambda or 0.0
    step = engine.Recipe(recipe.batch_size, lr, recipe.momentum, recipe.nesterov, l1)
    examples = engine.Examples(data.train_images, data.train_labels, draws.order, draws.maps)
    weights, momentum, loss, correct = engine.train(
        machine.plan, state.weights, state.momentum, step, examples
    )
    val_loss, val_accuracy, _ = engine.measure(
        machine.plan, weights, data.val_images, data.val_labels
    )
    count = len(draws.order)
    return Epoch(weights, momentum, loss / count, correct / count, val_loss, val_accuracy)


def _refuse_infinite(recipe: Recipe, seed: int, epoch: int, after: Epoch) -> None:
    finite = all(np.isfinite(array).all() for array in after.weights.values())
    if not (finite and math.isfinite(after.train_loss) and math.isfinite(after.val_loss)):
        raise InputError(
            f"{recipe.variant}, seed {seed}, epoch {epoch}: the loss is no longer finite; "
            f"most likely the learning rate is too high (lr is {recipe.lr:g})"
        )


def _rng(seed: int, purpose: int, epoch: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, epoch])
