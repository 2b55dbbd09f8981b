"""The network on a CPU, in float32: `engine.c`, compiled for the CPU it runs on.

Three times as fast as the same step in PyTorch, whose convolutions are made for more channels
than these. PyTorch keeps the parameters and their gradients; the engine works on them in place.
"""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from normlab import augment, networks

# Text, so that it travels to the workers of a scheduler elsewhere with our other code.
SOURCE = Path(__file__).with_suffix(".c").read_text()
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared"]

BATCH, GROUP, ELEMENT = range(3)

# The members of the structures of engine.c: numbers and addresses, eight bytes each.
LAYER = (
    *("inputs", "outputs", "kernel", "pad", "side", "pool", "norm", "groups", "stride"),
    *("weight", "scale", "shift", "weight_gradient", "scale_gradient", "shift_gradient"),
    *("running_mean", "running_variance", "input", "active", "normal", "dnormal", "gradient"),
    *("mean", "inverse", "sums", "products", "weight_sums", "scale_sums", "shift_sums"),
    *("packed", "turned"),
)
NETWORK = (
    *("layer", "weight", "bias", "weight_gradient", "bias_gradient"),
    *("weight_sums", "bias_sums", "shades", "layers"),
)


@dataclass(frozen=True)
class Attached:
    """The engine's view of a network: valid while the network's tensors stay where they are."""

    library: ctypes.CDLL
    network: NDArray[np.int64]
    owners: list[Any]
    """What keeps alive the memory that `network` points to."""


def fits(network: nn.Sequential) -> bool:
    """Whether the engine knows all normalizations of a network from `networks.build`."""
    return all(_kind(module) is not None for name, module in _norms(network))


def attach(network: nn.Sequential, batch_size: int) -> Attached:
    """Prepare for steps of at most `batch_size` images on the parameters of a network that `fits`.

    The network's gradients are set to zeros, to be overwritten by every step.

    Raises
    ------
    RuntimeError
        If the engine cannot be compiled here.
    """
    library = _library()
    lanes: int = library.lanes()
    owners: list[Any] = [network]

    def buffer(size: int) -> int:
        aligned = np.zeros((size + 1) * lanes, np.float32)
        owners.append(aligned)
        return int(aligned.ctypes.data + -aligned.ctypes.data % (4 * lanes))

    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    # Where images are independent of each other, one block of them at a time will do.
    norms = dict(_norms(network))
    together = any(isinstance(norm, nn.BatchNorm2d) for norm in norms.values())
    blocks = -(-batch_size // lanes) if together else 1

    layers = np.zeros((len(networks.CONVOLUTIONS), len(LAYER)), np.int64)
    stride = max(outputs for _, outputs, _, _ in networks.CONVOLUTIONS) * augment.SIDE**2
    dnormal = buffer(blocks * stride)
    side = augment.SIDE
    for i, (inputs, outputs, kernel, pad) in enumerate(networks.CONVOLUTIONS, start=1):
        convolution: Any = network.get_submodule(f"conv{i}")
        norm = norms[f"norm{i}"]
        pool = i == networks.POOL_AFTER
        framed = side + 2 * pad
        side = framed - kernel + 1
        pixels, spread = side * side, side + 2 * (kernel - 1 - pad)
        kind, groups = _kind(norm) or (0, 0)
        affine = outputs * pixels if kind == ELEMENT else outputs
        count = inputs * outputs * kernel * kernel
        members = {
            **{"inputs": inputs, "outputs": outputs, "kernel": kernel, "pad": pad, "side": side},
            **{"pool": pool, "norm": kind, "groups": groups, "stride": stride},
            **_tensors("weight", convolution.weight),
            **_tensors("scale", norm.weight),
            **_tensors("shift", norm.bias),
            "running_mean": norm.running_mean.data_ptr() if kind == BATCH else 0,
            "running_variance": norm.running_var.data_ptr() if kind == BATCH else 0,
            "input": buffer((blocks if i == 1 else 1) * inputs * framed * framed),
            "active": buffer(blocks * outputs * pixels),
            "normal": buffer(outputs * pixels),
            "dnormal": dnormal,
            "gradient": buffer(outputs * spread * spread),
            "mean": buffer(blocks * outputs),
            "inverse": buffer(blocks * outputs),
            "sums": buffer(outputs),
            "products": buffer(outputs),
            "weight_sums": buffer(count),
            "scale_sums": buffer(affine),
            "shift_sums": buffer(affine),
            "packed": buffer(count),
            "turned": buffer(count),
        }
        layers[i - 1] = [members[name] for name in LAYER]
        side = side // 2 if pool else side
    linear: Any = network.get_submodule("linear")
    every = torch.arange(256, dtype=torch.uint8).repeat_interleave(augment.SIDE**2)
    shades = networks.standardize(every)[:, 0, 0, 0].contiguous()
    owners += [layers, shades]
    members = {
        "layer": layers.ctypes.data,
        **_tensors("weight", linear.weight),
        **_tensors("bias", linear.bias),
        "weight_sums": buffer(linear.weight.numel()),
        "bias_sums": buffer(linear.bias.numel()),
        "shades": shades.data_ptr(),
        "layers": len(layers),
    }
    return Attached(library, np.array([members[name] for name in NETWORK]), owners)


def step(
    attached: Attached,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    chosen: NDArray[np.int64],
    maps: NDArray[np.float32],
) -> tuple[float, int]:
    """Set the gradients of the mean cross-entropy of some images under affine maps.

    Parameters
    ----------
    images, labels
        (n, 900) uint8 from `augment.pad` and (n,) uint8.
    chosen
        (m,) int64: which of them; at most as many as attached for.
    maps
        (m, 2, 3) float32 from `augment.draw`, contiguous.

    Returns
    -------
    The sum of the losses, in nats, and the number of images classified correctly.
    """
    correct = ctypes.c_int64(0)
    loss = attached.library.step(
        *(_address(array) for array in (attached.network, images, labels, chosen, maps)),
        ctypes.c_int(len(chosen)),
        ctypes.byref(correct),
    )
    return float(loss), correct.value


def logits(network: nn.Sequential, images: NDArray[np.uint8]) -> Tensor:
    """Apply a network on the CPU in evaluation mode: images (n, 28, 28) uint8 to (n, 10) float32.

    A network that the engine does not fit is applied by PyTorch.
    """
    if not fits(network):
        return networks.logits(network, torch.from_numpy(images))
    attached = attach(network, 1)
    outputs = np.empty((len(images), 10), np.float32)
    padded, order = augment.pad(images), np.arange(len(images))
    attached.library.predict(
        *(_address(array) for array in (attached.network, padded, order)),
        ctypes.c_int(len(images)),
        _address(outputs),
    )
    return torch.from_numpy(outputs)


def _norms(network: nn.Sequential) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in network.named_children() if name.startswith("norm")]


def _kind(norm: nn.Module) -> tuple[int, int] | None:
    """Find what the engine calls a normalization, and the number of its groups."""
    if isinstance(norm, nn.BatchNorm2d):
        return BATCH, norm.num_features
    if isinstance(norm, nn.GroupNorm):
        return GROUP, norm.num_groups
    if isinstance(norm, nn.LayerNorm):
        return ELEMENT, 1
    return None


def _tensors(name: str, parameter: nn.Parameter) -> dict[str, int]:
    assert parameter.grad is not None
    assert parameter.is_contiguous()
    return {name: parameter.data_ptr(), f"{name}_gradient": parameter.grad.data_ptr()}


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _library() -> ctypes.CDLL:
    """Load the engine, compiled once for this machine and user."""
    made_of = [SOURCE, *FLAGS, version("ziglang"), str(torch.cpu.get_capabilities())]
    name = f"engine-{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}.so"
    folder = Path(tempfile.gettempdir()) / f"normlab-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder}: belongs to another user")
    if not (folder / name).exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, made = Path(scratch) / "engine.c", Path(scratch) / name
            source.write_text(SOURCE)
            command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, str(source), "-o", str(made)]
            compiled = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if compiled.returncode:
                raise RuntimeError(f"engine.c: cannot be compiled: {compiled.stderr.strip()}")
            made.rename(folder / name)
    library = ctypes.CDLL(str(folder / name))
    library.step.restype = ctypes.c_double
    return library
