"""What is drawn of each normalization is what the network does."""

import pytest
from torch import nn

from normlab.network import networks
from normlab.network.architecture import REFERENCE
from normlab.report import norm_axes


def test_the_shapes_drawn_are_those_of_the_network() -> None:
    network = networks.build("gn", gn_groups=4)
    norms = [module for module in network if isinstance(module, nn.GroupNorm)]
    assert [norm.num_channels for norm in norms] == [channels for channels, _ in REFERENCE.shapes]
    elementwise = networks.build("ln", ln_affine="elementwise")
    shapes = [m.normalized_shape for m in elementwise if isinstance(m, nn.LayerNorm)]
    assert shapes == [(channels, side, side) for channels, side in REFERENCE.shapes]


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 16])
def test_the_groups_drawn_are_those_of_the_network(limit: int) -> None:
    network = networks.build("gn", gn_groups=limit)
    norms = [module for module in network if isinstance(module, nn.GroupNorm)]
    drawn = {kind["name"]: kind["boxes"] for kind in norm_axes.normalized(limit, batch=8)}
    channels = [box["channels"] for box in drawn["Group norm"]]
    assert channels == [norm.num_channels // norm.num_groups for norm in norms]


def test_the_boxes_count_what_each_normalization_averages_over() -> None:
    kinds = {kind["name"]: kind["boxes"] for kind in norm_axes.normalized(gn_groups=4, batch=128)}
    channels, side = REFERENCE.shapes[0]
    first = {name: boxes[0]["count"] for name, boxes in kinds.items()}
    assert first == {
        "Batch norm": 128 * side**2,
        "Group norm": channels // 4 * side**2,
        "Layer norm": channels * side**2,
        "Instance norm": side**2,
    }
    widths = [float(box["width"]) for box in kinds["Layer norm"]]
    depth = norm_axes.IMAGE[0] * 128
    sides = [side for _, side in REFERENCE.shapes]
    drawn = [(width - depth) / side for width, side in zip(widths, sides, strict=True)]
    assert drawn == pytest.approx([norm_axes.SIDE] * len(sides), abs=0.02)  # one scale for all
