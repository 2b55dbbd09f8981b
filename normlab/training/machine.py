"""What computes a trial on the machine it runs on: the engine, or PyTorch."""

from typing import NamedTuple

import torch

from normlab.errors import InputError
from normlab.network import compiled, known_answer, networks, plans
from normlab.training.recipe import Recipe


class Machine(NamedTuple):
    """What a recipe's trials are computed by."""

    device: torch.device
    dtype: torch.dtype
    plan: plans.Plan | None
    """The engine's, or None where PyTorch trains."""
    name: str
    arithmetic: str
    """What decides the bits, beside recipe and data: one word wherever the engine trains."""


def resolve(recipe: Recipe) -> Machine:
    """Choose what trains a recipe's trials on the machine this runs on.

    On a CPU in float32 that is the engine, for networks that it knows; its results are the same
    everywhere. All else is PyTorch's, and belongs to the device and the version.

    Raises
    ------
    InputError
        If `device` or `precision` names what this machine does not have, or the engine does not
        work here or computes other numbers.
    """
    device, dtype = _device(recipe.device, recipe.precision)
    kind = f"{device}, {str(dtype).removeprefix('torch.')}"
    why = "PyTorch"
    if device.type == "cpu" and dtype == torch.float32:
        network = networks.build(recipe.variant, recipe.architecture, **recipe.norm_params)
        found = plans.plan(network, recipe.architecture)
        if isinstance(found, plans.Plan):
            arithmetic = f"engine {known_answer.check(found)}"
            name = f"{kind}, the engine for {compiled.processor().name}"
            return Machine(device, dtype, found, name, arithmetic)
        why = f"PyTorch, since the engine does not know {found.reason}"
    name = f"{kind}, {why}: results belong to this machine"
    return Machine(device, dtype, None, name, f"{kind}, PyTorch {torch.__version__}")


def _device(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: got cuda, but there is no CUDA GPU here, allowed: auto or cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    if precision == "bfloat16" and not native:
        raise InputError(
            "precision: got bfloat16, which this device does not compute natively, "
            "allowed: auto or float32"
        )
    # On a CPU the engine in float32 is faster than PyTorch in bfloat16.
    use_bfloat16 = precision == "bfloat16" or (on_gpu and native and precision == "auto")
    return (
        torch.device("cuda" if on_gpu else "cpu"),
        torch.bfloat16 if use_bfloat16 else torch.float32,
    )
