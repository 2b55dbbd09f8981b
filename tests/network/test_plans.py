"""Networks that the engine does not know are refused by name, and go through PyTorch."""

from typing import Any

import pytest
from torch import nn

from normlab.network import networks, plans

BEFORE_RELU = {"norm_place": "before_relu"}


def replaced(name: str, module: nn.Module, options: dict[str, Any] | None = None) -> nn.Sequential:
    network = networks.build("bn_l1", **(options or {}))
    network.set_submodule(name, module)
    return network


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (replaced("norm3", nn.RMSNorm([6, 24, 24])), "norm3: RMSNorm"),
        (replaced("norm3", nn.GroupNorm(2, 6)), "batch norm beside another normalization"),
        (replaced("norm3", nn.BatchNorm2d(6, eps=1e-3)), "norm3: BatchNorm2d"),
        (replaced("norm3", nn.BatchNorm2d(6, affine=False)), "norm3: BatchNorm2d"),
        (replaced("norm3", nn.LayerNorm([24, 24])), "norm3: got 6 channels of 24 pixels"),
        (replaced("norm3", nn.LayerNorm([23])), "norm3: got 6 channels of 24 pixels"),
        (replaced("norm3", nn.LayerNorm([24])), "batch norm beside another normalization"),
        (replaced("norm3", nn.ReLU()), "norm3: ReLU"),
        (replaced("relu1", nn.GELU()), "relu1: GELU"),
        (replaced("norm1", nn.RMSNorm([26]), BEFORE_RELU), "norm1: RMSNorm"),
        (replaced("norm1", nn.LayerNorm([25]), BEFORE_RELU), "norm1: got 12 channels of 26"),
        (replaced("relu1", nn.GELU(), BEFORE_RELU), "relu1: GELU"),
        (replaced("conv2", nn.Conv2d(12, 16, 5, bias=False)), "conv2: Conv2d"),
        (replaced("conv2", nn.Conv2d(12, 16, 3, bias=True)), "conv2: Conv2d"),
        (replaced("conv2", nn.Conv2d(12, 16, 3, stride=2, bias=False)), "conv2: Conv2d"),
        (replaced("conv1", nn.Conv2d(3, 12, 3, bias=False)), "conv1: got 1 channels"),
        (replaced("pool", nn.AvgPool2d(2)), "pool, conv4"),
        (replaced("pool", nn.MaxPool2d(3)), "pool: MaxPool2d"),
        (replaced("average", nn.AdaptiveAvgPool2d(2)), "linear: not on a global average"),
        (replaced("linear", nn.Linear(14, 10, bias=False)), "linear: not on a global average"),
        (nn.Sequential(nn.Flatten()), "0: where it should end"),
    ],
)
def test_what_the_engine_does_not_know_is_named(network: nn.Sequential, reason: str) -> None:
    found = plans.plan(network)
    assert isinstance(found, plans.Unsupported)
    assert found.reason.startswith(reason)
    assert not plans.supports(network)
    assert plans.supports(networks.build("bn_l1"))
