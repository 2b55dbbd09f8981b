import decimal
from dataclasses import replace

import numpy as np
import pytest
import torch

from normlab.arms import MAIN, Arm
from normlab.errors import InputError
from normlab.evidence import evaluation
from normlab.evidence.evaluation import LabelledImages, TrainedModel
from normlab.network import networks
from normlab.training import trial
from normlab.training.recipe import Data
from tests.conftest import NORM_PARAMS, VARIANTS, make_recipe


def model_of(variant: str, seed: int = 0) -> TrainedModel:
    state = trial.start(make_recipe(variant), seed)
    return TrainedModel(Arm(MAIN, variant, {}), NORM_PARAMS[variant], seed, 1, state.weights)


@pytest.mark.parametrize("variant", VARIANTS)
def test_measure_is_the_network_applied_to_the_images(variant: str, noise: Data) -> None:
    model = model_of(variant)
    got = evaluation.score(model, LabelledImages(noise.val_images, noise.val_labels))
    network = networks.build(variant, **NORM_PARAMS[variant]).eval()
    network.load_state_dict({n: torch.from_numpy(a) for n, a in model.weights.items()})
    pixels = torch.from_numpy(noise.val_images).float()[:, None] / 255
    with torch.no_grad():
        expected = network((pixels - 0.1307) / 0.3081).softmax(1).numpy()
    np.testing.assert_allclose(got.probabilities, expected, atol=1e-5)
    of_true = expected[np.arange(40), noise.val_labels]
    assert got.loss == pytest.approx(-np.log(of_true).mean(), rel=1e-4)
    assert got.accuracy == np.mean(expected.argmax(1) == noise.val_labels)


def test_validation_and_test_are_measured_alike(noise: Data) -> None:
    recipe = make_recipe()
    state = trial.train_epoch(recipe, trial.start(recipe, 0), noise)
    model = TrainedModel(Arm(MAIN, "gn", {}), NORM_PARAMS["gn"], 0, 1, state.weights)
    got = evaluation.score(model, LabelledImages(noise.val_images, noise.val_labels))
    assert got.loss == state.row["val_loss"]
    assert got.accuracy == state.row["val_accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv1.weight": np.zeros((12, 1, 5, 5))},
            r"conv1.weight has shape \(12, 1, 5, 5\), .*3, 3",
        ),
        ({"extra": np.zeros(3)}, r"extra has shape \(3,\), allowed: no such tensor"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: dict[str, np.ndarray], message: str
) -> None:
    model = model_of("gn")
    with pytest.raises(InputError, match=f"^a/file: does not fit the gn network: {message}"):
        evaluation.check(replace(model, weights=model.weights | change), "a/file")


def test_a_missing_tensor_is_refused() -> None:
    model = model_of("gn")
    weights = {name: array for name, array in model.weights.items() if name != "linear.bias"}
    with pytest.raises(InputError, match=r"linear\.bias has shape missing, allowed: \(10,\)"):
        evaluation.check(replace(model, weights=weights), "a/file")


def test_small_share_counts_trainable_weights_only() -> None:
    model = model_of("bn_l1")
    trainable = {"conv1.weight": 108, "linear.bias": 10}
    small = {n: np.full_like(a, 0.5) for n, a in model.weights.items()}
    small |= {name: np.full_like(model.weights[name], -9e-4) for name in trainable}
    buffers = {"norm1.running_mean": np.zeros(12, dtype=np.float32)}
    assert evaluation.small_share(replace(model, weights=small | buffers)) == 118 / 7946


@pytest.mark.parametrize("exponent", [-2, -1.75, -1.5, -0.25, 1.0])
def test_a_magnitude_at_an_edge_is_counted_above_it(exponent: float) -> None:
    """To the bit: the edge is the power of ten, correctly rounded."""
    model = model_of("gn")
    with decimal.localcontext(prec=60):
        edge = decimal.Decimal(10) ** decimal.Decimal(exponent)
        nearest = np.float32(float(edge))
        at_or_above = decimal.Decimal(float(nearest)) >= decimal.Decimal(float(edge))
    weights = {n: np.full_like(a, -nearest) for n, a in model.weights.items()}
    exponents = [-3.0, exponent, 2.0]
    shares = evaluation.magnitudes([replace(model, weights=weights)], exponents)
    np.testing.assert_array_equal(shares, [0, 1] if at_or_above else [1, 0])
    above = {n: np.nextafter(a, np.float32(-100)) for n, a in weights.items()}
    assert evaluation.magnitudes([replace(model, weights=above)], exponents).tolist() == [0, 1]
    below = {n: np.nextafter(a, np.float32(0)) for n, a in weights.items()}
    assert evaluation.magnitudes([replace(model, weights=below)], exponents).tolist() == [1, 0]


def test_magnitudes_are_shares_of_all_models_and_what_lies_outside_is_at_the_ends() -> None:
    model = model_of("gn")
    full = [
        replace(model, weights={n: np.full_like(a, size) for n, a in model.weights.items()})
        for size in (0, 1e-9, 0.05, -0.5, 1e6)
    ]
    exponents = [-8, -2, -1, 0, 1]
    assert evaluation.magnitudes(full, exponents).tolist() == [0.4, 0.2, 0.2, 0.2]
