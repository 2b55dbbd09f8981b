"""The engine as a C library: its source for a network, the job it is given, and a call of it."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from normlab.network import compiled, tiles
from normlab.network.compiled import Processor
from normlab.network.plans import Layer, Plan

# Text, so that it travels to the workers of a scheduler elsewhere with our other code.
ENGINE = Path(__file__).with_name("engine.c").read_text()
LANES = 16

# What is to be done, for all functions of the library; each reads what it needs. This is the one
# description of the structure that C and Python share: its members' names and types.
MEMBERS = {
    "images": "uint8_t *",  # (., side + 2, side + 2), as `augment.pad` makes them
    "labels": "uint8_t *",  # (.)
    "order": "int64_t *",  # (count): which images
    "maps": "float *",  # (count, 2, 3)
    "parameters": "float *",  # all of them, one after the other
    "velocity": "float *",  # as `parameters`
    "running": "float *",  # of batch norm: running mean and variance, layer by layer
    "pixel_lut": "float *",  # (256): what each pixel value is to the network
    "norms": "int32_t *",  # (layers): BATCH, GROUP, ELEMENT or ROW
    "norm_first": "int32_t *",  # (layers): 1 where it comes before ReLU
    "groups": "int32_t *",  # (layers): of GROUP and ELEMENT
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


def new_job(**members: Any) -> Any:
    """Make a `ctypes.Structure` of `MEMBERS`: numbers as they are, arrays by their address.

    Arrays are kept as long as the structure, in its dictionary `arrays`.

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
    job = type("Job", (ctypes.Structure,), {"_fields_": fields, "arrays": {}})()
    for name, value in members.items():
        if not isinstance(value, np.ndarray):
            setattr(job, name, value)
            continue
        _, wanted = TYPES[MEMBERS[name].rstrip(" *")]
        if value.dtype != wanted or not value.flags.c_contiguous:
            allowed = f"{wanted.__name__}, contiguous"
            raise ValueError(f"{name}: got {value.dtype}, allowed: {allowed}")
        setattr(job, name, value.ctypes.data)
        job.arrays = job.arrays | {name: value}
    return job


def run(function: str, plan: Plan, job: Any) -> None:
    """Call a function of the library, `train`, `predict` or `score`, in memory enough for it.

    Raises
    ------
    InputError
        If the library cannot be compiled or loaded here.
    """
    library = load(plan)
    if job.parameters:
        job.memory_size = memory_for(plan, job)
        memory = np.empty(job.memory_size + 64, np.uint8)
        job.memory = memory.ctypes.data + -memory.ctypes.data % 64
    getattr(library, function)(ctypes.byref(job))


def memory_for(plan: Plan, job: Any) -> int:
    """Bytes that a job takes; of its arrays those are read that `engine.memory` gives it."""
    return int(load(plan).memory_for(ctypes.byref(job)))


def load(plan: Plan) -> ctypes.CDLL:
    """Load the library for networks of this shape, compiled once for this machine and user.

    Raises
    ------
    InputError
        If it cannot be compiled or loaded here.
    """
    processor = compiled.processor()
    library = compiled.load(source(plan, processor), processor)
    library.job_size.restype = library.memory_for.restype = ctypes.c_int64
    there, here = library.job_size(), ctypes.sizeof(new_job())
    if there != here:
        raise RuntimeError(f"Job: got {there} bytes in the library, expected {here}")
    return library


def source(plan: Plan, processor: Processor) -> str:
    """Write the engine's source for networks of this shape, its tiles for this processor.

    Normalizations are not in it: they are told to it with each job.
    """
    job = "".join(f"  {kind}{name};\n" for name, kind in MEMBERS.items())
    shapes = ", ".join(f"{{{_shape(layer, processor)}}}" for layer in plan.layers)
    each = " ".join(f"DO({i})" for i in range(len(plan.layers)))
    return (
        "#include <stddef.h>\n#include <stdint.h>\n\n"
        f"#define SIDE {plan.side}\n#define CLASSES {plan.classes}\n"
        f"#define LAYERS {len(plan.layers)}\n#define SHAPES {shapes}\n"
        f"#define FOR_EACH_LAYER(DO) {each}\n\n"
        f"typedef struct {{\n{job}}} Job;\n\n{ENGINE}"
    )


def _shape(layer: Layer, processor: Processor) -> str:
    """Write a `Shape` of engine.c, member by member."""
    regs, registers = LANES // processor.width, processor.registers
    input_side = layer.side + layer.kernel - 1 - 2 * layer.pad
    tile = tiles.conv_tile(layer.outputs, layer.side * regs, registers)
    back = tiles.conv_tile(layer.inputs, input_side * regs, registers)
    dweight = tiles.dweight_tile(layer.outputs, layer.kernel, registers)
    shape = (layer.inputs, layer.outputs, layer.kernel, layer.pad, layer.side, layer.pool)
    return ", ".join(str(int(number)) for number in (*shape, *tile, *back, dweight))
