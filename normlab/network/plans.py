"""A network as the engine sees it: read off its modules, or refused by name."""

from typing import Any, NamedTuple

from torch import nn

from normlab.network.architecture import REFERENCE, Architecture

BATCH, GROUP, ELEMENT, ROW = range(4)
"""Kinds of normalization: statistics over the batch, or over groups of channels with a scale for
each channel, or over all channels with a scale for each element, or over each row with a scale for
each column."""
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
EPSILON, MOMENTUM = 1e-5, 0.1
"""PyTorch's defaults, which the engine has as constants."""


class Layer(NamedTuple):
    """A convolution with its ReLU, normalization and, after both or not, a max pool of 2 by 2."""

    inputs: int
    outputs: int
    kernel: int
    pad: int
    side: int
    """Of the convolution's output."""
    pool: bool
    norm: int
    groups: int
    norm_first: bool
    """Whether the normalization comes before ReLU."""


class Plan(NamedTuple):
    """A network as the engine sees it."""

    side: int
    """Of the images."""
    classes: int
    layers: tuple[Layer, ...]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    """Names and shapes, in the order in which the engine has them."""
    running: tuple[str, ...]
    """Names of batch norm's running means and variances, in the same order."""
    mean: float
    std: float
    """Of its images' pixels, as `Architecture` has them."""


class Unsupported(NamedTuple):
    """Why the engine cannot train a network."""

    reason: str


def plan(network: nn.Sequential, of: Architecture = REFERENCE) -> Plan | Unsupported:
    """Read a network's layers; what the engine does not know is named.

    Parameters
    ----------
    network
        As `networks.build` makes it: convolution, ReLU and normalization in either order and maybe
        max pool, several times, then global average and linear layer.
    of
        Whose side, mean and standard deviation its images have.
    """
    modules = list(network.named_children())
    layers: list[Layer] = []
    channels, here = 1, of.side
    while modules and isinstance(modules[0][1], nn.Conv2d):
        pool = len(modules) > 3 and isinstance(modules[3][1], nn.MaxPool2d)
        layer = _layer(modules[: 4 if pool else 3], channels, here)
        if isinstance(layer, Unsupported):
            return layer
        layers.append(layer)
        channels, here = layer.outputs, layer.side // 2 if pool else layer.side
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
    parameters = tuple((name, tuple(p.shape)) for name, p in network.named_parameters())
    running = tuple(n for n, b in network.named_buffers() if b.is_floating_point())
    return Plan(
        side=of.side,
        classes=linear.out_features,
        layers=tuple(layers),
        parameters=parameters,
        running=running,
        mean=of.mean,
        std=of.std,
    )


def supports(network: nn.Sequential, of: Architecture = REFERENCE) -> bool:
    """Whether the engine can train and apply a network of this architecture."""
    return isinstance(plan(network, of), Plan)


def _layer(modules: list[tuple[str, nn.Module]], channels: int, side: int) -> Layer | Unsupported:
    """Read a convolution and what belongs to it, for an input of these channels and this side."""
    names = [name for name, _ in modules]
    norm_first = any(isinstance(module, NORMS) for _, module in modules[1:2])
    first, second = (_knows_norm, _knows_relu) if norm_first else (_knows_relu, _knows_norm)
    for (name, module), known in zip(modules, (_knows_conv, first, second), strict=False):
        if (fault := known(module)) is not None:
            return Unsupported(f"{name}: {fault}")
    if len(modules) < 3:
        return Unsupported(f"{names[-1]}: nothing after it")
    conv: Any = modules[0][1]
    kernel, pad, outputs = conv.kernel_size[0], conv.padding[0], conv.out_channels
    after = side + 2 * pad - kernel + 1
    norm = 1 if norm_first else 2
    kind, groups, shape = _norm(modules[norm][1])
    if conv.in_channels != channels or after < 1:
        return Unsupported(f"{names[0]}: got {channels} channels of {side} pixels' side")
    if shape != {ELEMENT: (outputs, after, after), ROW: (after,)}.get(kind, outputs):
        return Unsupported(f"{names[norm]}: got {outputs} channels of {after} pixels")
    pool = len(modules) > 3
    if pool and (fault := _knows_pool(modules[3][1], after)) is not None:
        return Unsupported(f"{names[3]}: {fault}")
    return Layer(channels, outputs, kernel, pad, after, pool, kind, groups, norm_first)


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
    if not isinstance(module, NORMS):
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
    shape = tuple(module.normalized_shape)
    return ROW if len(shape) == 1 else ELEMENT, 1, shape
