import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, known_answer, networks, plans
from normlab.network.architecture import REFERENCE
from normlab.training import machine, pytorch, trial
from normlab.training.recipe import Data, State, learning_rate
from tests.conftest import VARIANTS, make_recipe


def equal(one: State, other: State) -> bool:
    return (
        one.row == other.row
        and all(np.array_equal(one.weights[n], other.weights[n]) for n in one.weights)
        and all(np.array_equal(one.momentum[n], other.momentum[n]) for n in one.momentum)
    )


def plain_epoch(variant: str, state: State, data: Data) -> nn.Module:
    """The same epoch as anyone would write it: autograd throughout, an image at a time."""
    recipe = make_recipe(variant)
    network = networks.build(variant, **recipe.norm_params).train()
    network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in state.weights.items()})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.015, momentum=0.9, nesterov=True)
    order = np.random.default_rng([state.seed, trial.ORDER, 1]).permutation(100)
    maps = augment.draw(
        np.random.default_rng([state.seed, trial.AUGMENTATION, 1]), 100, recipe.augmentation
    )
    for begin in range(0, 100, 32):
        chosen = order[begin : begin + 32]
        images = []
        for image, affine in zip(data.train_images[chosen], maps[begin : begin + 32], strict=True):
            source = augment.source_pixels(affine[None], augment.grid()).astype(int)
            images.append(augment.pad(image[None])[0][source].reshape(1, 28, 28))
        batch = (torch.from_numpy(np.array(images)).float() / 255 - 0.1307) / 0.3081
        target = torch.from_numpy(data.train_labels[chosen]).long()
        loss = nn.functional.cross_entropy(network(batch), target)
        if recipe.l1_lambda is not None:
            loss = loss + recipe.l1_lambda * sum(p.abs().sum() for p in network.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_epoch_is_the_plain_one_last_partial_batch_included(
    variant: str, noise: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = trial.start(make_recipe(variant), seed=3)
    theirs = plain_epoch(variant, start, noise).state_dict()

    by_engine = trial.train_epoch(make_recipe(variant), start, noise).weights
    without_engine(monkeypatch)
    by_torch = trial.train_epoch(make_recipe(variant), start, noise).weights

    for name, tensor in theirs.items():
        torch.testing.assert_close(torch.from_numpy(by_torch[name]), tensor, rtol=1e-4, atol=1e-5)
    # Rounded otherwise, a unit at zero may be active or not: the whole is near, not each weight.
    learned = [theirs[name].numpy() - start.weights[name] for name in by_engine]
    apart = [theirs[name].numpy() - array for name, array in by_engine.items()]
    assert norm(apart) < 0.03 * norm(learned)


def test_images_of_another_side_and_more_classes_train_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letters = REFERENCE._replace(side=24, classes=26, mean=0.3, std=0.4)
    recipe = make_recipe(architecture=letters)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 24, 24), dtype=np.uint8)
    labels = rng.integers(0, 26, 60, dtype=np.uint8)
    data, start = Data(images, labels, images, labels), trial.start(recipe, seed=1)
    by_engine = trial.train_epoch(recipe, start, data)
    without_engine(monkeypatch)
    by_torch = trial.train_epoch(recipe, start, data)
    learned = [by_torch.weights[name] - start.weights[name] for name in start.weights]
    apart = [by_torch.weights[name] - by_engine.weights[name] for name in start.weights]
    assert norm(apart) < 0.03 * norm(learned)
    assert by_engine.row["train_loss"] == pytest.approx(by_torch.row["train_loss"], rel=1e-3)
    assert by_engine.row["val_loss"] == pytest.approx(by_torch.row["val_loss"], rel=1e-2)
    assert trial.divergence(recipe, by_engine) is None


def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "plan", lambda *_: plans.Unsupported("what it is told not to"))


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum((array.astype(float) ** 2).sum() for array in arrays)))


def test_the_l1_gradient_is_autograds() -> None:
    network = networks.build("bn_l1")
    x, target = torch.randn(8, 1, 28, 28), torch.randint(0, 10, (8,))
    parameters = list(network.parameters())
    with torch.no_grad():
        parameters[0][0] = 0
    nn.functional.cross_entropy(network(x), target).backward()
    pytorch.add_l1_gradient(parameters, 0.01)
    ours = [p.grad.clone() for p in parameters if p.grad is not None]
    network.zero_grad()
    penalty = 0.01 * torch.stack([p.abs().sum() for p in parameters]).sum()
    (nn.functional.cross_entropy(network(x), target) + penalty).backward()
    assert len(ours) == len(parameters)
    for gradient, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    arrays = [p.detach().numpy() for p in parameters]
    assert trial.l1_norm(arrays) * 0.01 == pytest.approx(penalty.item(), rel=1e-5)


def test_the_penalty_is_a_column_of_its_own(noise: Data) -> None:
    recipe = make_recipe("bn_l1")
    row = trial.train_epoch(recipe, trial.start(recipe, 0), noise).row
    without = trial.train_epoch(make_recipe("gn"), trial.start(make_recipe("gn"), 0), noise).row
    assert list(row) == [*list(without)[:-1], "l1_penalty", "weights"]
    assert row["l1_penalty"] > 0


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    noise: Data, precision: str
) -> None:
    recipe = make_recipe(precision=precision)
    one, again, other = (
        trial.train_epoch(recipe, trial.start(recipe, s), noise) for s in (1, 1, 2)
    )
    assert equal(one, again)
    assert not equal(one, other)


def test_the_global_generators_have_no_say(noise: Data) -> None:
    recipe = make_recipe()
    torch.manual_seed(1)
    one = trial.train_epoch(recipe, trial.start(recipe, 0), noise)
    torch.manual_seed(2)
    assert equal(one, trial.train_epoch(recipe, trial.start(recipe, 0), noise))


def test_training_learns() -> None:
    labels = np.arange(120, dtype=np.uint8) % 10
    stripes = np.arange(28) % (labels[:, None] + 2) == 0
    images = np.repeat(255 * stripes.astype(np.uint8)[:, None], 28, axis=1)
    striped = Data(images, labels, images, labels)
    recipe = make_recipe(epochs=12, lr=0.05)
    state = trial.start(recipe, 0)
    rows = []
    for _ in range(12):
        state = trial.train_epoch(recipe, state, striped)
        rows.append(state.row)
    assert rows[0]["train_loss"] > 2
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert rows[-1]["val_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4]),
        ("step", [0.4, 0.4, 0.04, 0.04]),
        ("cosine", [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5))]),
    ],
)
def test_learning_rates(schedule: str, expected: list[float]) -> None:
    recipe = make_recipe(lr=0.4, lr_schedule=schedule, lr_step_epochs=2, epochs=4)
    got = [learning_rate(recipe, epoch) for epoch in range(1, 5)]
    assert got == pytest.approx(expected)


def test_divergence_names_variant_seed_epoch_and_cause(noise: Data) -> None:
    recipe = make_recipe("gn", lr=1e30)
    with pytest.raises(InputError, match=r"^gn, seed 7, epoch 1: .*lr is 1e\+30\)$"):
        trial.train_epoch(recipe, trial.start(recipe, 7), noise)


def test_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
        return machine.resolve(make_recipe(device=device, precision=precision))[:2]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device: got cuda, .* allowed: auto or cpu$"):
        resolved("cuda", "auto")
    cpu = torch.device("cpu")
    assert resolved("auto", "float32") == (cpu, torch.float32)
    found = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**found, "avx512_bf16": False})
    assert resolved("auto", "auto") == (cpu, torch.float32)
    with pytest.raises(InputError, match=r"^precision: got bfloat16, .* auto or float32$"):
        resolved("cpu", "bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**found, "avx512_bf16": True})
    assert resolved("auto", "auto") == (cpu, torch.float32)
    assert resolved("auto", "bfloat16") == (cpu, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert resolved("auto", "auto") == (torch.device("cuda"), torch.float32)
    assert resolved("cpu", "auto") == (cpu, torch.float32)


def test_what_is_outside_the_promise_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = machine.resolve(make_recipe())
    assert ours.name == f"cpu, float32, the engine for {compiled.processor().name}"
    assert ours.arithmetic == f"engine {known_answer.ARITHMETIC}"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert machine.resolve(make_recipe()) == ours
    gpu = machine.resolve(make_recipe(device="auto", precision="auto"))
    assert gpu.name == "cuda, bfloat16, PyTorch: results belong to this machine"
    assert gpu.arithmetic == f"cuda, bfloat16, PyTorch {torch.__version__}"
    rms_norm = networks.Variant("rms", "RMS norm", lambda _, side: nn.RMSNorm([side]))
    monkeypatch.setitem(networks.VARIANTS, "rms", rms_norm)
    rms = machine.resolve(replace(make_recipe("gn"), variant="rms", norm_params={}))
    assert rms.name.startswith(
        "cpu, float32, PyTorch, since the engine does not know norm1: RMSNorm"
    )
    assert (rms.plan, rms.name.endswith(": results belong to this machine")) == (None, True)


class Reads(TorchDispatchMode):
    """Counts how often a value is fetched from its device, which waits for all work there."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pytorchs_steps_never_wait_for_the_device(
    variant: str, noise: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_engine(monkeypatch)
    counts = []
    for batch_size in (50, 5):
        recipe = make_recipe(variant, batch_size=batch_size)
        with Reads() as reads:  # type: ignore[no-untyped-call]
            trial.train_epoch(recipe, trial.start(recipe, 0), noise)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_gives_what_the_cpu_gives(noise: Data) -> None:
    recipe = make_recipe()
    start = trial.start(recipe, 0)
    on_cpu = trial.train_epoch(recipe, start, noise)
    on_gpu = trial.train_epoch(replace(recipe, device="cuda"), start, noise)
    assert on_gpu.row["train_loss"] == pytest.approx(on_cpu.row["train_loss"], rel=1e-3)
