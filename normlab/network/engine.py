"""The network on a CPU, in float32, with the same bits everywhere: `engine.c`, with its shapes.

Several times as fast as the same step in PyTorch, whose convolutions are made for more channels
than these. Parameters come as arrays by the names that PyTorch gives them, and go as such.
"""

import ctypes
import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.data import augment
from normlab.network import compiled, networks, tiles
from normlab.network.plans import Plan

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]

# What is to be done, for all functions of the library; each reads what it needs. This is the one
# description of the structure that C and Python share: its members' names and types.
MEMBERS = {
    "images": "uint8_t *",  # (., side + 2, side + 2), as `augment.pad` makes them
    "labels": "uint8_t *",  # (.)
    "order": "int64_t *",  # (count): which images
    "maps": "float *",  # (count, 2, 3)
    "parameters": "float *",  # all of them, one after the other
    "velocity": "float *",  # as `parameters`
    "statistics": "float *",  # of batch norm: running mean and variance, layer by layer
    "pixel_lut": "float *",  # (256): what each pixel value is to the network
    "norms": "int32_t *",  # (layers): BATCH, GROUP or ELEMENT
    "groups": "int32_t *",  # (layers)
    "logits": "float *",  # (count, classes)
    "probabilities": "float *",  # as `logits`
    "memory": "char *",
    "memory_size": "int64_t ",
    "count": "int64_t ",
    "batch_size": "int64_t ",
    "correct": "int64_t ",  # a sum, as is
    "loss": "double ",
    "lr": "float ",
    "momentum": "float ",
    "l1": "float ",
    "nesterov": "int32_t ",
}
TYPES: dict[str, tuple[type, type]] = {
    "uint8_t": (ctypes.c_uint8, np.uint8),
    "int32_t": (ctypes.c_int32, np.int32),
    "int64_t": (ctypes.c_int64, np.int64),
    "float": (ctypes.c_float, np.float32),
    "double": (ctypes.c_double, np.float64),
    "char": (ctypes.c_uint8, np.uint8),
}


def job(**members: Any) -> Any:
    """Make a `ctypes.Structure` of `MEMBERS`: numbers as they are, arrays by their address.

    Arrays are kept as long as the structure, in its dictionary `held`.

    Raises
    ------
    ValueError
        If an array has another type than its member, or is not contiguous.
    """
    # Made here, since a class of this kind cannot travel to the workers of a scheduler elsewhere.
    fields = [
        (name, ctypes.c_void_p if kind.endswith("*") else TYPES[kind.strip()][0])
        for name, kind in MEMBERS.items()
    ]
    made = type("Job", (ctypes.Structure,), {"_fields_": fields, "held": {}})()
    put(made, **members)
    return made


def put(made: Any, **members: Any) -> None:
    """Set members of a `job`."""
    for name, value in members.items():
        if not isinstance(value, np.ndarray):
            setattr(made, name, value)
            continue
        _, wanted = TYPES[MEMBERS[name].rstrip(" *")]
        if value.dtype != wanted or not value.flags.c_contiguous:
            allowed = f"{wanted.__name__}, contiguous"
            raise ValueError(f"{name}: got {value.dtype}, allowed: {allowed}")
        setattr(made, name, value.ctypes.data)
        made.held = made.held | {name: value}


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
    found: Plan, weights: Arrays, velocity: Arrays, recipe: Recipe, examples: Examples
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
    parameters, buffers = _flat(found, weights)
    speed = np.concatenate([velocity[name].ravel() for name, _ in found.parameters])
    images, labels, order, maps = examples
    made = _job(found, augment.pad(images), order, parameters, buffers)
    put(made, labels=_checked(labels, found), maps=maps, velocity=speed)
    put(made, **recipe._asdict())
    run("train", found, made)
    after = _named(found, parameters) | dict(
        zip(found.statistics, _statistics(found, buffers), strict=True)
    )
    steps = -(-len(order) // recipe.batch_size)
    counters = {n: np.asarray(weights[n] + steps) for n in weights if n not in after}
    return (
        {name: (after | counters)[name] for name in weights},
        _named(found, speed),
        made.loss,
        made.correct,
    )


def logits(found: Plan, weights: Arrays, images: NDArray[np.uint8]) -> Floats:
    """Apply a network in evaluation mode: images (n, side, side) uint8 to (n, classes) float32.

    Raises
    ------
    InputError
        If the engine cannot be compiled or loaded here.
    """
    outputs = np.empty((len(images), found.classes), np.float32)
    made = _job(found, augment.pad(images), np.arange(len(images)), *_flat(found, weights))
    put(made, logits=outputs)
    run("predict", found, made)
    return outputs


def score(found: Plan, outputs: Floats, labels: NDArray[np.uint8]) -> tuple[float, int, Floats]:
    """Mean cross-entropy (nats), number of correct ones and softmax, (n, classes), of logits.

    Computed in float64; of equal logits the first counts as the largest.
    """
    probabilities = np.empty_like(outputs)
    made = job(
        count=len(outputs),
        logits=outputs,
        labels=_checked(labels, found),
        probabilities=probabilities,
    )
    run("score", found, made)
    return made.loss / len(outputs), made.correct, probabilities


def measure(
    found: Plan, weights: Arrays, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[float, float, Floats]:
    """Mean cross-entropy (nats), fraction correct and softmax, (n, classes), of some images."""
    loss, correct, probabilities = score(found, logits(found, weights, images), labels)
    return loss, correct / len(labels), probabilities


def fingerprint(arrays: Arrays) -> str:
    """Digest of arrays: their names, types, shapes and bytes, whatever the order of names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()[:16]


def library(found: Plan) -> ctypes.CDLL:
    """Load the engine for networks of this shape, compiled once for this machine and user.

    Raises
    ------
    InputError
        If it cannot be compiled or loaded here.
    """
    kind = compiled.processor()
    loaded = compiled.load(tiles.source(found, kind, MEMBERS), kind)
    loaded.job_size.restype = loaded.memory_for.restype = ctypes.c_int64
    there, here = loaded.job_size(), ctypes.sizeof(job())
    if there != here:
        raise RuntimeError(f"Job: got {there} bytes in the library, expected {here}")
    return loaded


def _job(
    found: Plan,
    images: NDArray[np.uint8],
    order: NDArray[np.int64],
    parameters: Floats,
    buffers: Floats,
) -> Any:
    return job(
        images=images,
        order=order,
        parameters=parameters,
        statistics=buffers,
        pixel_lut=networks.pixel_lut(),
        norms=np.array([layer.norm for layer in found.layers], np.int32),
        groups=np.array([layer.groups for layer in found.layers], np.int32),
        count=len(order),
        batch_size=len(order),
    )


def run(name: str, found: Plan, made: Any) -> None:
    """Call a function of the library with a job, in memory enough for it."""
    loaded = library(found)
    if made.parameters:
        made.memory_size = loaded.memory_for(ctypes.byref(made))
        memory = np.empty(made.memory_size + 64, np.uint8)
        made.memory = memory.ctypes.data + -memory.ctypes.data % 64
    getattr(loaded, name)(ctypes.byref(made))


def _flat(found: Plan, weights: Arrays) -> tuple[Floats, Floats]:
    """Copy all parameters, and batch norm's statistics, one after the other."""
    parameters = np.concatenate([weights[name].ravel() for name, _ in found.parameters])
    kept = [weights[name] for name in found.statistics]
    return parameters, np.concatenate([*kept, np.zeros(0, np.float32)])


def _named(found: Plan, flat: Floats) -> Arrays:
    ends = np.cumsum([math.prod(shape) for _, shape in found.parameters])[:-1]
    pieces = zip(found.parameters, np.split(flat, ends), strict=True)
    return {name: piece.reshape(shape) for (name, shape), piece in pieces}


def _statistics(found: Plan, flat: Floats) -> list[Floats]:
    sizes = [layer.outputs for layer in found.layers for _ in range(2)]
    return np.split(flat, np.cumsum(sizes)[:-1]) if found.statistics else []


def _checked(labels: NDArray[np.uint8], found: Plan) -> NDArray[np.uint8]:
    if labels.size and labels.max() >= found.classes:
        raise ValueError(f"labels: got {labels.max()}, allowed: 0 to {found.classes - 1}")
    return labels
