"""The network on a CPU, in float32, with the same bits everywhere: `engine.c`, with its shapes.

Several times as fast as the same step in PyTorch, whose convolutions are made for more channels
than these. Parameters come as arrays by the names that PyTorch gives them, and go as such.
"""

import ctypes
import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, networks
from normlab.network.compiled import Processor

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]

# Text, so that it travels to the workers of a scheduler elsewhere with our other code.
SOURCE = Path(__file__).with_suffix(".c").read_text()

ARITHMETIC = "6be620a4b8b0118d"
"""The known answer, and so the version of all that decides the bits: whoever changes those, and
means to, changes this too."""
LANES = 16
BATCH, GROUP, ELEMENT = range(3)
EPSILON, MOMENTUM = 1e-5, 0.1

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
    "shades": "float *",  # (256): what a pixel's value is to the network
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


class Layer(NamedTuple):
    """A convolution with its ReLU, normalization and, after it or not, a max pool of 2 by 2."""

    inputs: int
    outputs: int
    kernel: int
    pad: int
    side: int
    """Of the convolution's output."""
    pool: bool
    norm: int
    groups: int


class Plan(NamedTuple):
    """A network as the engine sees it."""

    side: int
    """Of the images."""
    classes: int
    layers: tuple[Layer, ...]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    """Names and shapes, in the order in which the engine has them."""
    statistics: tuple[str, ...]


class Unsupported(NamedTuple):
    """Why the engine cannot train a network."""

    reason: str


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


def plan(network: nn.Sequential, side: int) -> Plan | Unsupported:
    """Read a network's layers; what the engine does not know is named.

    Parameters
    ----------
    network
        As `networks.build` makes it: convolution, ReLU, normalization and maybe max pool, several
        times, then global average and linear layer.
    side
        Of the images, in pixels.
    """
    modules = list(network.named_children())
    layers: list[Layer] = []
    channels, here = 1, side
    while modules and isinstance(modules[0][1], nn.Conv2d):
        part = modules[:3]
        pool = len(modules) > 3 and isinstance(modules[3][1], nn.MaxPool2d)
        for (name, module), known in zip(
            part, (_knows_conv, _knows_relu, _knows_norm), strict=False
        ):
            if (fault := known(module)) is not None:
                return Unsupported(f"{name}: {fault}")
        if len(part) < 3:
            return Unsupported(f"{part[-1][0]}: nothing after it")
        conv: Any = part[0][1]
        kernel, pad = conv.kernel_size[0], conv.padding[0]
        after = here + 2 * pad - kernel + 1
        kind, groups, shape = _norm(part[2][1])
        if conv.in_channels != channels or after < 1:
            return Unsupported(f"{part[0][0]}: got {channels} channels of {here} pixels' side")
        if shape != ((conv.out_channels, after, after) if kind == ELEMENT else conv.out_channels):
            return Unsupported(f"{part[2][0]}: got {conv.out_channels} channels of {after} pixels")
        if pool and (fault := _knows_pool(modules[3][1], after)) is not None:
            return Unsupported(f"{modules[3][0]}: {fault}")
        layers.append(Layer(channels, conv.out_channels, kernel, pad, after, pool, kind, groups))
        channels, here = conv.out_channels, after // 2 if pool else after
        modules = modules[4 if pool else 3 :]
    ends = (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear)
    if not layers or tuple(type(module) for _, module in modules) != ends:
        names = ", ".join(name for name, _ in modules) or "nothing"
        return Unsupported(f"{names}: where it should end with average, flatten and linear layer")
    average, linear = modules[0][1], modules[2][1]
    assert isinstance(linear, nn.Linear)
    if average.output_size not in (1, (1, 1)) or not _is_linear(linear, channels):
        return Unsupported(f"{modules[2][0]}: not on a global average")
    if len({layer.norm == BATCH for layer in layers}) > 1:
        return Unsupported("batch norm beside another normalization")
    named = tuple((name, tuple(p.shape)) for name, p in network.named_parameters())
    running = tuple(n for n, b in network.named_buffers() if b.is_floating_point())
    return Plan(side, linear.out_features, tuple(layers), named, running)


def supports(network: nn.Sequential, side: int) -> bool:
    """Whether the engine can train and apply a network to images of `side` pixels."""
    return isinstance(plan(network, side), Plan)


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


def check() -> None:
    """See, once per process, that this machine computes what all others do.

    Raises
    ------
    InputError
        If it does not, or the engine cannot be compiled or loaded here.
    """
    reference = plan(networks.build("bn_l1"), augment.SIDE)
    assert isinstance(reference, Plan)
    checked = ctypes.c_int.in_dll(library(reference), "checked")
    if checked.value:
        return
    got = known_answer()
    if got != ARITHMETIC:
        raise InputError(
            f"engine: this machine computes other numbers ({compiled.processor().name}, NumPy "
            f"{np.__version__}): the known answer came out as {got}, allowed: {ARITHMETIC}"
        )
    checked.value = 1


def known_answer() -> str:
    """Digest of a few steps of each normalization, from the first random number to the loss."""
    digest = hashlib.sha256()
    count = 20
    i, y, x = np.ogrid[:count, : augment.SIDE, : augment.SIDE]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    settings: dict[str, dict[str, Any]] = {
        "bn_l1": {},
        "gn": {"gn_groups": 4},
        "ln": {"ln_affine": "elementwise"},
    }
    for variant, setting in settings.items():
        rng = np.random.default_rng(0)
        network = networks.build(variant, **setting)
        networks.initialize(network, rng)
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        found = plan(network, augment.SIDE)
        assert isinstance(found, Plan)
        velocity = {name: np.zeros_like(weights[name]) for name, _ in found.parameters}
        maps = augment.draw(rng, count, augment.Ranges(10, 0.1, (0.8, 1.2), 8))
        examples = Examples(images, labels, rng.permutation(count), maps)
        after = train(found, weights, velocity, Recipe(8, 0.1, 0.9, True, 1e-4), examples)
        digest.update(f"{after[2:]} {measure(found, after[0], images, labels)[:2]}".encode())
        digest.update(f"{fingerprint(after[0])} {fingerprint(after[1])}".encode())
    return digest.hexdigest()[:16]


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
    loaded = compiled.load(source(found, kind), kind)
    loaded.job_size.restype = loaded.memory_for.restype = ctypes.c_int64
    there, here = loaded.job_size(), ctypes.sizeof(job())
    if there != here:
        raise RuntimeError(f"Job: got {there} bytes in the library, expected {here}")
    return loaded


def source(found: Plan, kind: Processor) -> str:
    """Write the engine's source for networks of this shape, its tiles for this processor.

    Normalizations are not in it: they are told to it with each job.
    """
    members = "".join(f"  {made}{name};\n" for name, made in MEMBERS.items())
    shapes = ", ".join(f"{{{_shape(layer, kind)}}}" for layer in found.layers)
    each = " ".join(f"DO({i})" for i in range(len(found.layers)))
    return (
        "#include <stddef.h>\n#include <stdint.h>\n\n"
        f"#define SIDE {found.side}\n#define CLASSES {found.classes}\n"
        f"#define LAYERS {len(found.layers)}\n#define SHAPES {shapes}\n#define EACH(DO) {each}\n\n"
        f"typedef struct {{\n{members}}} Job;\n\n{SOURCE}"
    )


def _shape(layer: Layer, kind: Processor) -> str:
    parts = LANES // kind.width
    before = layer.side + layer.kernel - 1 - 2 * layer.pad
    tiles = (
        *tile(layer.outputs, layer.side * parts, kind.registers),
        *tile(layer.inputs, before * parts, kind.registers),
        weights_tile(layer.outputs, layer.kernel, kind.registers),
    )
    numbers = (*layer[:6], *tiles)
    return ", ".join(str(int(number)) for number in numbers)


def tile(channels: int, values: int, registers: int) -> tuple[int, int]:
    """Choose a convolution's tile: how many channels by how many registers of neighbouring values.

    Parameters
    ----------
    channels, values
        What is to be covered: output channels, and registers that a row of pixels fills. What a
        tile leaves over at an end is covered by a smaller one.
    registers
        Vector registers there are: a tile's sums, its values and one weight have to fit.
    """
    fitting = [
        (c, n)
        for c in range(1, channels + 1)
        for n in range(1, values + 1)
        if c * n + n + 1 <= registers
    ]

    def cost(choice: tuple[int, int]) -> float:
        return sum(
            count_c * count_n * cycles(c * n, c + n)
            for c, count_c in _cover(channels, choice[0])
            for n, count_n in _cover(values, choice[1])
        )

    return min(fitting, key=cost)


def weights_tile(channels: int, kernel: int, registers: int) -> int:
    """Choose how many channels of the weights' gradient to sum at a time, by a kernel's row."""
    fitting = [c for c in range(1, channels + 1) if c * kernel + kernel + 1 <= registers]

    def cost(choice: int) -> float:
        return sum(n * cycles(c * kernel, c + kernel) for c, n in _cover(channels, choice))

    return min(fitting, key=cost)


def cycles(products: int, loads: int) -> float:
    """Estimate how long a tile takes for one input value and weight: the rule behind its choice.

    Processors start two multiply-adds and two loads a cycle, and loads hide half behind them; a sum
    is ready for its next addend after four cycles.
    """
    return max(products / 2 + loads / 4, 4)


def _cover(length: int, step: int) -> list[tuple[int, int]]:
    """Sizes and numbers of the pieces that a length is cut into."""
    return [(step, length // step)] + ([(length % step, 1)] if length % step else [])


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
        shades=networks.pixel_lut(),
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


def _knows_conv(module: nn.Module) -> str | None:
    known = (
        isinstance(module, nn.Conv2d)
        and module.kernel_size in ((1, 1), (3, 3))
        and module.padding in ((0, 0), (1, 1))
        and (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding_mode == "zeros"
        and module.bias is None
    )
    return None if known else f"{module}, allowed: kernel 1 or 3, padding 0 or 1, no bias"


def _knows_relu(module: nn.Module) -> str | None:
    return None if isinstance(module, nn.ReLU) else f"{module}, allowed: ReLU"


def _knows_norm(module: nn.Module) -> str | None:
    if not isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
        return f"{module}, allowed: batch, group or layer norm"
    affine = module.weight is not None and module.bias is not None
    usual = not isinstance(module, nn.BatchNorm2d) or (
        module.momentum == MOMENTUM and module.track_running_stats
    )
    known = affine and usual and module.eps == EPSILON
    return None if known else f"{module}, allowed: with scale and shift, PyTorch's defaults"


def _knows_pool(module: nn.Module, side: int) -> str | None:
    known = (
        isinstance(module, nn.MaxPool2d)
        and module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and (module.padding, module.dilation, module.ceil_mode) == (0, 1, False)
        and side >= 2
    )
    return None if known else f"{module} of {side} pixels' side, allowed: 2 by 2"


def _is_linear(module: nn.Linear, channels: int) -> bool:
    return module.in_features == channels and module.bias is not None


def _norm(module: Any) -> tuple[int, int, Any]:
    """Give the engine's name of a normalization, its number of groups, and the shape it is of."""
    if isinstance(module, nn.BatchNorm2d):
        return BATCH, module.num_features, module.num_features
    if isinstance(module, nn.GroupNorm):
        return GROUP, module.num_groups, module.num_channels
    return ELEMENT, 1, tuple(module.normalized_shape)
