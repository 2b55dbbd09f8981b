"""The engine against PyTorch in double precision, for networks of any shape."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normlab.data import augment
from normlab.data.augment import Ranges
from normlab.network import compiled, engine, networks
from normlab.network.architecture import REFERENCE, Architecture
from normlab.network.compiled import Processor
from normlab.training.recipe import Data
from tests.conftest import NORM_PARAMS, PUBLISHED, VARIANTS
from tests.network.harness import KINDS, plan_of, use

RANGES = Ranges(rotation=7, translation=0.1, scale=(0.85, 1.15), shear=5)
USUAL: list[tuple[str, dict[str, Any]]] = [
    *((variant, NORM_PARAMS[variant]) for variant in VARIANTS),
    *(("gn", {"gn_groups": groups}) for groups in (1, 3, 16)),
    ("ln", {"ln_affine": "channel"}),
]
LAST: tuple[str, dict[str, Any]] = ("ln", NORM_PARAMS["ln"] | {"ln_axes": "last"})
NETWORKS = [
    *USUAL,
    LAST,
    *((variant, params | {"norm_place": "before_relu"}) for variant, params in [*USUAL, LAST]),
]


def make(
    variant: str, norm_params: dict[str, Any], seed: int, architecture: Architecture = REFERENCE
) -> nn.Sequential:
    network = networks.build(variant, architecture, **norm_params)
    rng = np.random.default_rng(seed)
    networks.initialize(network, rng)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.startswith("norm") and tensor.is_floating_point():
                tensor += torch.from_numpy(rng.uniform(-0.2, 0.2, tensor.shape))
    return network


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def assert_a_step_is_autograds(
    network: nn.Sequential, count: int, side: int, classes: int, most: float
) -> None:
    """One step without momentum leaves the gradient as velocity."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count + 3, side, side), dtype=np.uint8)
    labels = rng.integers(0, classes, count + 3, dtype=np.uint8)
    order = rng.permutation(count + 3)[:count]
    maps = augment.draw(rng, count, RANGES)
    plan, weights = plan_of(network, side), arrays(network)
    velocity: engine.Arrays = {
        name: np.zeros(p.shape, np.float32) for name, p in network.named_parameters()
    }
    recipe = engine.Recipe(count, 0.5, 0.0, False, 0.0)
    examples = engine.Examples(images, labels, order, maps)
    after, gradients, loss, correct = engine.train(plan, weights, velocity, recipe, examples)

    double, nearest = network.double().train(), list[float]()
    for module in double.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(
                lambda _, inputs, __: nearest.append(float(inputs[0].detach().abs().min()))
            )
    sources = source_pixels(maps, side)
    batch = np.take_along_axis(augment.pad(images[order]), sources, 1).reshape(-1, 1, side, side)
    target = torch.from_numpy(labels[order]).long()
    outputs = double(torch.from_numpy(networks.pixel_lut()[batch]).double())
    expected = nn.functional.cross_entropy(outputs, target)
    expected.backward()

    assert loss / count == pytest.approx(float(expected.detach()), rel=1e-5)
    assert correct == int((outputs.argmax(1) == target).sum())
    theirs = {n: p.grad.numpy() for n, p in double.named_parameters() if p.grad is not None}
    largest = max(float(np.abs(gradient).max()) for gradient in theirs.values())
    # What is within rounding of 0 may be on ReLU's other side here.
    most = most if min(nearest) > 2e-6 else max(most, 5e-3)
    assert list(gradients) == list(theirs)
    for name, gradient in gradients.items():
        assert np.abs(gradient - theirs[name]).max() < most * largest, name
        np.testing.assert_allclose(
            after[name], weights[name] - np.float32(0.5) * gradient, 1e-6, 1e-8
        )
    for name, buffer in double.named_buffers():
        np.testing.assert_allclose(after[name], buffer.numpy(), 1e-5, 1e-6)


def source_pixels(maps: np.ndarray, side: int) -> np.ndarray:
    """As `augment.source_pixels`, for images of any side."""
    centre = (side - 1) / 2
    y, x = np.mgrid[:side, :side].reshape(2, -1) - np.float32(centre)
    column, row = (
        (maps[:, i, :1] * x + maps[:, i, 1:2] * y + maps[:, i, 2:] + centre).clip(-1, side).round()
        for i in (0, 1)
    )
    index: np.ndarray = (row * (side + 2) + column + side + 3).astype(np.int64)
    return index


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("variant", "norm_params"), [*NETWORKS, *PUBLISHED])
@pytest.mark.parametrize("count", [1, 5, 16, 20])
def test_a_steps_gradients_are_autograds_in_double_precision(
    variant: str,
    norm_params: dict[str, Any],
    count: int,
    kind: Processor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(kind, monkeypatch)
    most = tolerance(norm_params, 1e-5, count)
    assert_a_step_is_autograds(make(variant, norm_params, seed=1), count, 28, 10, most)


@pytest.mark.parametrize(("variant", "norm_params"), [*NETWORKS, *PUBLISHED])
def test_gradients_of_a_whole_batch_are_autograds(
    variant: str, norm_params: dict[str, Any]
) -> None:
    most = tolerance(norm_params, 1e-5, 128)
    assert_a_step_is_autograds(make(variant, norm_params, seed=1), 128, 28, 10, most)


def tolerance(norm_params: dict[str, Any], usual: float, count: int) -> float:
    """How far off the gradients may be, of the largest.

    A row of nearly equal values is divided by a standard deviation of nearly nothing, and what
    rounding left of it may come to be on the other side of ReLU: of many images some have such a
    row. PyTorch in single precision is as far off.
    """
    if "ln_axes" not in norm_params:
        return usual
    return 5e-3 if count > 5 else 10 * usual


def test_a_batch_of_one_value_a_channel_says_nothing_of_a_variance() -> None:
    smallest = REFERENCE._replace(side=18, classes=2)
    network = make("bn_l1", {}, seed=0, architecture=smallest)
    plan, weights = plan_of(network, 18), arrays(network)
    velocity = {name: np.zeros(shape, np.float32) for name, shape in plan.parameters}
    examples = engine.Examples(
        np.full((1, 18, 18), 200, np.uint8),
        np.ones(1, np.uint8),
        np.zeros(1, np.int64),
        augment.draw(np.random.default_rng(0), 1, RANGES, 18),
    )
    recipe = engine.Recipe(16, 0.1, 0.9, True, 0.0)
    after, _, loss, _ = engine.train(plan, weights, velocity, recipe, examples)
    assert np.isfinite(loss)
    assert all(np.isfinite(array).all() for array in after.values())
    last = "norm7.running_var"
    np.testing.assert_array_equal(after[last], weights[last])
    assert (after["norm1.running_var"] != weights["norm1.running_var"]).any()


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Networks of one to four layers, with pools anywhere."""
    side = draw(st.integers(3, 17))
    layers, pools, channels, here = [], [], 1, side
    for i in range(1, draw(st.integers(1, 4)) + 1):
        kernels = [(k, p) for k in (1, 3) for p in (0, 1) if here + 2 * p - k + 1 >= 2]
        if not kernels:
            break
        kernel, pad = draw(st.sampled_from(kernels))
        outputs = draw(st.integers(1, 20))
        layers.append((channels, outputs, kernel, pad))
        channels, here = outputs, here + 2 * pad - kernel + 1
        if here >= 4 and draw(st.booleans()):
            pools.append(i)
            here //= 2
    return Architecture(side, draw(st.integers(2, 12)), tuple(layers), tuple(pools))


@settings(max_examples=20)
@given(
    architectures(),
    st.sampled_from(NETWORKS),
    st.sampled_from([2, 5, 16, 20]),
    st.integers(0, 99),
    st.sampled_from([kind for kind in KINDS if kind is not compiled.X86_64] or KINDS),
)
def test_networks_of_any_shape_have_autograds_gradients(
    architecture: Architecture,
    norm: tuple[str, dict[str, Any]],
    count: int,
    seed: int,
    kind: Processor,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(kind, patch)
        network = make(norm[0], norm[1], seed, architecture)
        most = max(tolerance(norm[1], 1e-4, count), 5e-2 * ("ln_axes" in norm[1]))
        assert_a_step_is_autograds(network, count, architecture.side, architecture.classes, most)


def test_rows_of_equal_values_become_their_shift_to_the_bit() -> None:
    """What rounding left of them would decide what a ReLU after it lets through."""
    network = make("ln", LAST[1] | {"norm_place": "before_relu"}, seed=3)
    with torch.no_grad():
        for i in range(1, 8):
            network.get_parameter(f"norm{i}.bias").zero_()
    plan, weights = plan_of(network), arrays(network)
    images = np.repeat(np.arange(40, dtype=np.uint8)[:, None] * 6, 784, axis=1)
    logits = engine.logits(plan, weights, images.reshape(40, 28, 28))
    np.testing.assert_array_equal(logits, np.tile(weights["linear.bias"], (40, 1)))


@pytest.mark.parametrize(("variant", "norm_params"), [*NETWORKS, *PUBLISHED])
def test_logits_are_pytorchs_and_scores_those_of_the_logits(
    variant: str, norm_params: dict[str, Any], noise: Data
) -> None:
    network = make(variant, norm_params, seed=2)
    plan, weights = plan_of(network), arrays(network)
    ours = engine.logits(plan, weights, noise.val_images)
    theirs = networks.logits(network, torch.from_numpy(noise.val_images))
    assert ours.shape == (40, 10)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)

    loss, accuracy, probabilities = engine.measure(
        plan, weights, noise.val_images, noise.val_labels
    )
    logits, labels = torch.from_numpy(ours).double(), torch.from_numpy(noise.val_labels).long()
    assert (loss, accuracy) == pytest.approx(networks.loss_and_accuracy(logits, labels), rel=1e-12)
    np.testing.assert_array_equal(probabilities, logits.softmax(1).float().numpy())


def test_of_equal_logits_the_first_is_taken() -> None:
    plan = plan_of(networks.build("bn_l1"))
    logits = np.tile(np.array([0, 2, 1, 2, 0, 0, 0, 0, 0, 0], np.float32), (2, 1))
    _, correct, _ = engine.score(plan, logits, np.array([1, 3], np.uint8))
    assert correct == 1
    with pytest.raises(ValueError, match="labels: got 10, allowed: 0 to 9"):
        engine.score(plan, logits, np.array([1, 10], np.uint8))
