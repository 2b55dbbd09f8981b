import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from normlab.network import networks
from normlab.network.architecture import REFERENCE, largest_divisor
from tests.conftest import NORM_PARAMS, PUBLISHED, VARIANTS

TABLE = {  # convolution: output shape, weights, batch or group norm's scales and shifts
    "conv1": ((12, 26, 26), 108, 24),
    "conv2": ((16, 24, 24), 1728, 32),
    "conv3": ((6, 24, 24), 96, 12),
    "conv4": ((12, 10, 10), 648, 24),
    "conv5": ((14, 8, 8), 1512, 28),
    "conv6": ((14, 6, 6), 1764, 28),
    "conv7": ((14, 6, 6), 1764, 28),
}


def test_parameter_counts_are_the_references() -> None:
    totals = {
        variant: sum(
            p.numel() for p in networks.build(variant, **NORM_PARAMS[variant]).parameters()
        )
        for variant in VARIANTS
    }
    assert totals == {"bn_l1": 7_946, "gn": 7_946, "ln": 55_546}
    assert networks.parameters_by_layer(networks.build("ln", ln_affine="channel"))["norm1"] == 24


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_have_the_references_shapes_and_weights(variant: str) -> None:
    network = networks.build(variant, **NORM_PARAMS[variant]).eval()
    counts = networks.parameters_by_layer(network)
    x = torch.zeros(2, 1, 28, 28)
    for name, layer in network.named_children():
        x = layer(x)
        if name == "pool":
            assert x.shape[1:] == (6, 12, 12)
        if name in TABLE:
            shape, weights, affine = TABLE[name]
            assert x.shape[1:] == shape
            assert counts[name] == weights
            norm = counts[name.replace("conv", "norm")]
            assert norm == (2 * np.prod(shape) if variant == "ln" else affine)
    assert x.shape == (2, 10)
    assert counts["linear"] == 150


def test_the_published_networks_have_the_published_shapes_and_parameters() -> None:
    totals = {}
    for variant, norm_params in PUBLISHED:
        network = networks.build(variant, **norm_params).eval()
        x, shapes = torch.zeros(2, 1, 28, 28), []
        for name, layer in network.named_children():
            x = layer(x)
            if name.startswith("conv") or name == "pool":
                shapes.append(x.shape[2])
        assert shapes == [26, 24, 26, 13, 11, 9, 7, 7]
        place = str(norm_params.get("norm_place"))
        totals[variant, norm_params.get("ln_axes") == "last", place] = sum(
            networks.parameters_by_layer(network).values()
        )
    assert totals == {
        ("bn_l1", False, "None"): 7_946,
        ("gn", False, "None"): 7_946,
        **{("ln", False, f"{place}_relu"): 24_162 for place in ("before", "after")},
        **{("ln", True, f"{place}_relu"): 7_990 for place in ("before", "after")},
    }


def test_the_last_axis_alone_is_normalized_row_by_row() -> None:
    x = torch.randn(4, 12, 10, 10)
    rows = networks.layer_norm(12, 10, ln_affine="elementwise", ln_axes="last")(x)
    deviations = x - x.mean(3, keepdim=True)
    variances = (deviations**2).mean(3, keepdim=True)
    torch.testing.assert_close(rows, deviations / (variances + 1e-5).sqrt())


def test_a_network_is_told_where_its_normalizations_are() -> None:
    names = [name for name, _ in networks.build("bn_l1").named_children()]
    before = networks.build("bn_l1", norm_place="before_relu")
    swapped = [name for name, _ in before.named_children()]
    assert names[:3] == ["conv1", "relu1", "norm1"]
    assert swapped[:3] == ["conv1", "norm1", "relu1"]
    assert sorted(names) == sorted(swapped)
    assert before.state_dict().keys() == networks.build("bn_l1").state_dict().keys()
    with pytest.raises(KeyError, match="before"):
        networks.build("bn_l1", norm_place="before")
    with pytest.raises(ValueError, match=r"^ln_affine: got channel, allowed over the last axis"):
        networks.build("ln", ln_affine="channel", ln_axes="last")


@given(st.integers(1, 200), st.integers(1, 300))
def test_largest_divisor(number: int, limit: int) -> None:
    found = largest_divisor(number, limit)
    assert number % found == 0
    assert found <= limit
    assert not any(number % d == 0 for d in range(found + 1, min(number, limit) + 1))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (1, [1, 1, 1, 1, 1, 1, 1]),
        (2, [2, 2, 2, 2, 2, 2, 2]),
        (4, [4, 4, 3, 4, 2, 2, 2]),
        (7, [6, 4, 6, 6, 7, 7, 7]),
        (16, [12, 16, 6, 12, 14, 14, 14]),
        (99, [12, 16, 6, 12, 14, 14, 14]),
    ],
)
def test_groups_per_layer(groups: int, expected: list[int]) -> None:
    network = networks.build("gn", gn_groups=groups)
    got = [layer.num_groups for layer in network if isinstance(layer, nn.GroupNorm)]
    assert got == expected


def test_sixteen_groups_are_instance_norm_and_one_is_layer_norms_statistics() -> None:
    x = torch.randn(4, 12, 10, 10)
    instance = networks.group_norm(12, 10, gn_groups=16)(x)
    torch.testing.assert_close(instance, nn.InstanceNorm2d(12)(x))
    one = networks.group_norm(12, 10, gn_groups=1)(x)
    layer = networks.layer_norm(12, 10, ln_affine="elementwise")(x)
    channel = networks.layer_norm(12, 10, ln_affine="channel")(x)
    torch.testing.assert_close(one, layer)
    torch.testing.assert_close(channel, layer)


def test_a_variants_params_are_those_of_its_normalization() -> None:
    known = {key: variant.params for key, variant in networks.VARIANTS.items()}
    assert known == {variant: list(NORM_PARAMS[variant]) for variant in VARIANTS}


def test_variants_are_known_by_their_keys_and_told_apart_by_their_labels() -> None:
    assert [variant.key for variant in networks.VARIANTS.values()] == list(networks.VARIANTS)
    assert len({variant.label for variant in networks.VARIANTS.values()}) == len(VARIANTS)
    assert [key for key, variant in networks.VARIANTS.items() if variant.l1] == ["bn_l1"]


def test_the_architecture_knows_the_shapes_that_its_convolutions_put_out() -> None:
    x, shapes = torch.zeros(1, 1, 28, 28), []
    for name, layer in networks.build("bn_l1").named_children():
        x = layer(x)
        if name.startswith("conv"):
            shapes.append((x.shape[1], x.shape[2]))
    assert tuple(shapes) == REFERENCE.shapes


def test_initial_weights_have_pytorchs_distribution_and_are_the_same_for_all_variants() -> None:
    built = {v: networks.build(v, **NORM_PARAMS[v]) for v in VARIANTS}
    for network in built.values():
        networks.initialize(network, np.random.default_rng(5))
    for name, parameter in built["gn"].named_parameters():
        if name.startswith(("conv", "linear")):
            torch.testing.assert_close(parameter, built["bn_l1"].get_parameter(name))
            torch.testing.assert_close(parameter, built["ln"].get_parameter(name))
    torch.manual_seed(0)
    theirs = nn.Conv2d(14, 14, 3, bias=False).weight.detach()
    ours = built["gn"].get_parameter("conv7.weight").detach()
    assert float(ours.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.02)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
    scale = built["ln"].get_parameter("norm1.weight")
    assert bool((scale == 1).all())


def test_standardize() -> None:
    pixels = torch.tensor([[0, 255] * 392], dtype=torch.uint8)
    expected = (pixels.float() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(networks.standardize(pixels).flatten(1), expected)


def test_logits_do_not_depend_on_the_batch_size() -> None:
    network = networks.build("bn_l1")
    pixels = torch.randint(0, 256, (30, 28, 28), dtype=torch.uint8)
    whole = networks.logits(network, pixels)
    torch.testing.assert_close(networks.logits(network, pixels, batch_size=7), whole)
    assert whole.dtype == torch.float32
    assert not network.training


def test_loss_and_accuracy() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    loss, accuracy = networks.loss_and_accuracy(outputs, torch.tensor([0, 1, 1]))
    expected = np.mean([np.log(1 + np.exp(-2)), np.log(1 + np.exp(-1)), np.log(1 + np.exp(3))])
    assert loss == pytest.approx(expected, rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trained_image_takes_the_references_operations(variant: str) -> None:
    network = networks.build(variant, **NORM_PARAMS[variant])
    with FlopCounterMode(display=False) as forward:
        outputs = network(torch.zeros(1, 1, 28, 28))
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    assert forward.get_total_flops() == 2 * 1_412_348
    assert (forward.get_total_flops() + backward.get_total_flops()) / 1e6 == pytest.approx(
        8.3, abs=0.05
    )
