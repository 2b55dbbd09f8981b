"""Training and inference by the engine: on a CPU, in float32, with the same bits everywhere.

Parameters come as arrays by the names that PyTorch gives them, and go as such. What the engine is
and why it is several times as fast as PyTorch here: docs/engine.md.
"""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.data import augment
from normlab.network import library, networks
from normlab.network.plans import Plan

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]


class Recipe(NamedTuple):
    """SGD as PyTorch has it: learning rate, momentum in either form, weight of Σ|p|."""

    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    l1: float


class Examples(NamedTuple):
    """What an epoch learns from."""

    images: NDArray[np.uint8]
    """(n, side, side)."""
    labels: NDArray[np.uint8]
    """(n,)."""
    order: NDArray[np.int64]
    """(m,): which of them, in this order."""
    maps: Floats
    """(m, 2, 3), from `augment.draw`."""


def train(
    plan: Plan, weights: Arrays, velocity: Arrays, recipe: Recipe, examples: Examples
) -> tuple[Arrays, Arrays, float, int]:
    """Train for an epoch: a step for every `recipe.batch_size` images, the last with what is left.

    Parameters
    ----------
    weights, velocity
        By name, as in PyTorch's `state_dict`: all of the network's, and of the parameters alone.

    Returns
    -------
    Weights and velocity afterwards, the sum of the losses in nats (as they were learned from, in
    float64) and the number of images classified correctly.

    Raises
    ------
    InputError
        If the engine cannot be compiled or loaded here.
    """
    members = _network(plan, weights)
    flat_velocity = np.concatenate([velocity[name].ravel() for name, _ in plan.parameters])
    images, labels, order, maps = examples
    job = library.new_job(
        **members,
        **recipe._asdict(),
        images=augment.pad(images),
        labels=_checked(labels, plan),
        order=order,
        count=len(order),
        maps=maps,
        velocity=flat_velocity,
    )
    library.run("train", plan, job)
    after = _named(plan, members["parameters"]) | _running(plan, members["running"])
    steps = -(-len(order) // recipe.batch_size)
    counters = {name: np.asarray(weights[name] + steps) for name in weights if name not in after}
    new = {name: (after | counters)[name] for name in weights}
    return new, _named(plan, flat_velocity), job.loss, job.correct


def memory(plan: Plan, batch_size: int) -> int:
    """Bytes that training takes: only batch norm's grow with the batch.

    Raises
    ------
    InputError
        If the engine cannot be compiled or loaded here.
    """
    job = library.new_job(
        **_norms(plan),
        velocity=np.zeros(1, np.float32),  # it trains
        count=batch_size,
        batch_size=batch_size,
    )
    return library.memory_for(plan, job)


def logits(plan: Plan, weights: Arrays, images: NDArray[np.uint8]) -> Floats:
    """Apply a network in evaluation mode: images (n, side, side) uint8 to (n, classes) float32.

    Raises
    ------
    InputError
        If the engine cannot be compiled or loaded here.
    """
    outputs = np.empty((len(images), plan.classes), np.float32)
    job = library.new_job(
        **_network(plan, weights),
        images=augment.pad(images),
        order=np.arange(len(images)),
        count=len(images),
        batch_size=len(images),
        logits=outputs,
    )
    library.run("predict", plan, job)
    return outputs


def score(plan: Plan, outputs: Floats, labels: NDArray[np.uint8]) -> tuple[float, int, Floats]:
    """Mean cross-entropy (nats), number of correct ones and softmax, (n, classes), of logits.

    Computed in float64; of equal logits the first counts as the largest.
    """
    probabilities = np.empty_like(outputs)
    job = library.new_job(
        count=len(outputs),
        logits=outputs,
        labels=_checked(labels, plan),
        probabilities=probabilities,
    )
    library.run("score", plan, job)
    return job.loss / len(outputs), job.correct, probabilities


def measure(
    plan: Plan, weights: Arrays, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[float, float, Floats]:
    """Mean cross-entropy (nats), fraction correct and softmax, (n, classes), of some images."""
    loss, correct, probabilities = score(plan, logits(plan, weights, images), labels)
    return loss, correct / len(labels), probabilities


def fingerprint(arrays: Arrays) -> str:
    """Digest of arrays: their names, types, shapes and bytes, whatever the order of names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()[:16]


def _network(plan: Plan, weights: Arrays) -> dict[str, NDArray[Any]]:
    """Members of a job that describe a network; copies of its weights, one after the other."""
    running = [weights[name] for name in plan.running]
    return {
        "parameters": np.concatenate([weights[name].ravel() for name, _ in plan.parameters]),
        "running": np.concatenate([*running, np.zeros(0, np.float32)]),
        "pixel_lut": networks.pixel_lut(plan.mean, plan.std),
        **_norms(plan),
    }


def _norms(plan: Plan) -> dict[str, NDArray[Any]]:
    """Members of a job that tell its normalizations."""
    return {
        "norms": np.array([layer.norm for layer in plan.layers], np.int32),
        "norm_first": np.array([layer.norm_first for layer in plan.layers], np.int32),
        "groups": np.array([layer.groups for layer in plan.layers], np.int32),
    }


def _named(plan: Plan, flat: Floats) -> Arrays:
    """Parameters, or their velocity, by name."""
    ends = np.cumsum([math.prod(shape) for _, shape in plan.parameters])[:-1]
    pieces = zip(plan.parameters, np.split(flat, ends), strict=True)
    return {name: piece.reshape(shape) for (name, shape), piece in pieces}


def _running(plan: Plan, flat: Floats) -> Arrays:
    """Batch norm's running means and variances by name."""
    if not plan.running:
        return {}
    ends = np.cumsum([layer.outputs for layer in plan.layers for _ in range(2)])[:-1]
    return dict(zip(plan.running, np.split(flat, ends), strict=True))


def _checked(labels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
    if labels.size and labels.max() >= plan.classes:
        raise ValueError(f"labels: got {labels.max()}, allowed: 0 to {plan.classes - 1}")
    return labels
