"""The network and its normalization layers.

Seven convolutions without bias, each followed by ReLU and a normalization, then a global average
and a linear layer: 7,946 parameters with batch or group norm. A study may have the normalization
before ReLU, and what else the networks of the reference's published notebook have otherwise.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from normlab.network.architecture import REFERENCE, Architecture, largest_divisor


def batch_norm(channels: int, side: int) -> nn.Module:  # noqa: ARG001
    """Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167): over (N,H,W), per channel."""
    return nn.BatchNorm2d(channels)


def group_norm(channels: int, side: int, *, gn_groups: int) -> nn.Module:  # noqa: ARG001
    """Group normalization (Wu & He 2018, arXiv 1803.08494): over (C/G,H,W), per image and group.

    G is the largest divisor of `channels` that is at most `gn_groups`.
    """
    return nn.GroupNorm(largest_divisor(channels, gn_groups), channels)


def layer_norm(channels: int, side: int, *, ln_affine: str, ln_axes: str = "chw") -> nn.Module:
    """Layer normalization (Ba et al. 2016, arXiv 1607.06450): over (C,H,W), per image.

    `ln_affine` is "elementwise" for a scale and shift per element, as `nn.LayerNorm` has it, or
    "channel" for one per channel. `ln_axes` is "chw", or "last" for the last axis alone: then each
    row of a channel has a mean and variance, and each column a scale and shift.
    """
    if ln_affine == "channel" and ln_axes == "chw":
        return nn.GroupNorm(1, channels)
    if ln_affine == "channel":
        raise ValueError("ln_affine: got channel, allowed over the last axis: elementwise")
    return nn.LayerNorm({"chw": [channels, side, side], "last": [side]}[ln_axes])


class Variant(NamedTuple):
    """A way to train the network: its normalization, and whether an L1 penalty is added."""

    key: str
    label: str
    """Its name for people."""
    normalization: Callable[..., nn.Module]
    """Makes the layer for a number of channels and the side of what it normalizes."""
    l1: bool = False

    @property
    def params(self) -> list[str]:
        """Names of the parameters that its normalization takes from `params.yaml`.

        Those with a default it takes from an arm's `network` alone.
        """
        found = inspect.getfullargspec(self.normalization)
        return [name for name in found.kwonlyargs if name not in (found.kwonlydefaults or {})]

    def values(self, value: Callable[[str], Any]) -> dict[str, Any]:
        """Gather these parameters, each as `value` gives it by its name."""
        return {name: value(name) for name in self.params}


VARIANTS = {
    variant.key: variant
    for variant in (
        Variant("bn_l1", "Batch norm + L1", batch_norm, l1=True),
        Variant("gn", "Group norm", group_norm),
        Variant("ln", "Layer norm", layer_norm),
    )
}
"""All that are compared, in the order in which they are shown."""


def build(
    variant: str,
    architecture: Architecture = REFERENCE,
    *,
    norm_place: str = "after_relu",
    conv3_padding: int | None = None,
    **norm_params: object,
) -> nn.Sequential:
    """Build the network of a variant.

    It maps standardized images, (n, 1, side, side) float32, to logits, (n, classes) float32. Its
    children are conv1, relu1, norm1, …, pool, …, average, flatten, linear.

    Parameters
    ----------
    variant
        A key of `VARIANTS`.
    architecture
        Shapes of the layers.
    norm_place
        "after_relu", or "before_relu": convolution, normalization, ReLU.
    conv3_padding
        Of the third convolution, 0 or 1; None for the architecture's.
    **norm_params
        A value for each of the variant's `params`, or a list with one for each convolution.
    """
    if conv3_padding is not None:
        architecture = architecture.with_padding(3, conv3_padding)
    network = nn.Sequential()
    make_norm, sides = VARIANTS[variant].normalization, [side for _, side in architecture.shapes]
    for i, (inputs, outputs, kernel, padding) in enumerate(architecture.convolutions, start=1):
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        network.add_module(f"conv{i}", convolution)
        here = {name: v[i - 1] if isinstance(v, list) else v for name, v in norm_params.items()}
        relu, norm = (f"relu{i}", nn.ReLU()), (f"norm{i}", make_norm(outputs, sides[i - 1], **here))
        for name, module in {"after_relu": (relu, norm), "before_relu": (norm, relu)}[norm_place]:
            network.add_module(name, module)
        if i in architecture.pools:
            name = "pool" if len(architecture.pools) == 1 else f"pool{i}"
            network.add_module(name, nn.MaxPool2d(2))
    network.add_module("average", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("linear", nn.Linear(outputs, architecture.classes))
    return network


def initialize(network: nn.Module, rng: np.random.Generator) -> None:
    """Draw convolution and linear parameters from U(±1/√fan_in), PyTorch's default, with `rng`.

    Normalization layers keep their scale 1 and shift 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                # Not rng.uniform, whose multiply-add some processors fuse.
                drawn = 2 * bound * rng.random(tuple(parameter.shape)) - bound
                parameter.data.copy_(torch.from_numpy(drawn.astype(np.float32)))


def parameters_by_layer(network: nn.Module) -> dict[str, int]:
    """Trainable parameters of each child that has any, in the network's order."""
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in network.named_children()}
    return {name: count for name, count in counts.items() if count}


def standardize(pixels: Tensor, of: Architecture = REFERENCE) -> Tensor:
    """Turn (n, s²) or (n, s, s) uint8 pixels into (n, 1, s, s) float32 of mean 0, std 1."""
    scale, shift = _scale_and_shift(of.mean, of.std)
    return pixels.view(-1, 1, of.side, of.side).float().mul_(scale).sub_(shift)


def pixel_lut(mean: float = REFERENCE.mean, std: float = REFERENCE.std) -> NDArray[np.float32]:
    """Look-up table of what `standardize` makes of each pixel value: (256,) float32."""
    scale, shift = _scale_and_shift(mean, std)
    return np.arange(256, dtype=np.float32) * np.float32(scale) - np.float32(shift)


def _scale_and_shift(mean: float, std: float) -> tuple[float, float]:
    """Of pixel values, to mean 0 and standard deviation 1."""
    return 1 / (255 * std), mean / std


@torch.inference_mode()
def logits(
    network: nn.Module, pixels: Tensor, batch_size: int = 64, of: Architecture = REFERENCE
) -> Tensor:
    """Apply the network in evaluation mode and in float32, whatever precision trained it.

    Parameters
    ----------
    pixels
        (n, side, side) uint8, on the network's device.
    batch_size
        Images at a time: few enough that a layer's output stays in a core's cache.
    of
        The network's architecture.

    Returns
    -------
    (n, classes) float32.
    """
    network.eval()
    return torch.cat([network(standardize(batch, of)) for batch in pixels.split(batch_size)])


def loss_and_accuracy(outputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and fraction correct of logits (n, classes), labels (n,) int64."""
    loss = nn.functional.cross_entropy(outputs, labels)
    return float(loss), float((outputs.argmax(1) == labels).double().mean())
