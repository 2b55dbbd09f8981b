import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from normlab import augment, engine, networks
from normlab.augment import Ranges
from normlab.training import Data
from tests.conftest import SETTINGS, VARIANTS

RANGES = Ranges(rotation=7, translation=0.1, scale=(0.85, 1.15), shear=5)
NETWORKS = [
    *((variant, SETTINGS[variant]) for variant in VARIANTS),
    *(("gn", {"gn_groups": groups}) for groups in (1, 3, 16)),
    ("ln", {"ln_affine": "channel"}),
]


def make(variant: str, settings: dict[str, object], seed: int) -> nn.Sequential:
    network = networks.build(variant, **settings)
    rng = np.random.default_rng(seed)
    networks.initialize(network, rng)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.startswith("norm") and tensor.is_floating_point():
                tensor += torch.from_numpy(rng.uniform(-0.2, 0.2, tensor.shape))
    return network


@pytest.mark.parametrize(("variant", "settings"), NETWORKS)
@pytest.mark.parametrize("count", [1, 5, 16, 20])
def test_a_steps_gradients_are_autograds_in_double_precision(
    variant: str, settings: dict[str, object], count: int, noise: Data
) -> None:
    rng = np.random.default_rng(count)
    chosen = rng.permutation(len(noise.train_labels))[:count]
    maps = np.ascontiguousarray(augment.draw(rng, count, RANGES))
    network = make(variant, settings, seed=1)
    double = make(variant, settings, seed=1).double()
    images = augment.pad(noise.train_images)

    # A smaller step first: what it leaves behind must not matter.
    attached = engine.attach(network, 20)
    engine.step(attached, images, noise.train_labels, chosen[:1], maps[:1])
    network.load_state_dict(double.state_dict())
    loss, correct = engine.step(attached, images, noise.train_labels, chosen, maps)

    sources = augment.source_pixels(maps, augment.grid()).astype(int)
    batch = networks.standardize(torch.from_numpy(np.take_along_axis(images[chosen], sources, 1)))
    target = torch.from_numpy(noise.train_labels[chosen]).long()
    outputs = double(batch.double())
    expected = nn.functional.cross_entropy(outputs, target)
    expected.backward()

    assert loss / count == pytest.approx(float(expected.detach()), rel=1e-5)
    assert correct == int((outputs.argmax(1) == target).sum())
    largest = max(float(p.grad.abs().max()) for p in double.parameters() if p.grad is not None)
    for ours, theirs in zip(network.parameters(), double.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert float((ours.grad - theirs.grad).abs().max()) < 1e-5 * largest
    for name, buffer in double.named_buffers():
        if buffer.is_floating_point():
            torch.testing.assert_close(dict(network.named_buffers())[name].double(), buffer)


@pytest.mark.parametrize(("variant", "settings"), NETWORKS)
def test_logits_are_pytorchs(variant: str, settings: dict[str, object], noise: Data) -> None:
    network = make(variant, settings, seed=2)
    ours = engine.logits(network, noise.val_images)
    theirs = networks.logits(network, torch.from_numpy(noise.val_images))
    assert ours.shape == (40, 10)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_another_normalization_is_left_to_pytorch(noise: Data) -> None:
    network = networks.build("bn_l1")
    network.norm3 = nn.RMSNorm([6, 24, 24])
    assert engine.fits(networks.build("bn_l1"))
    assert not engine.fits(network)
    theirs = networks.logits(network, torch.from_numpy(noise.val_images))
    assert torch.equal(engine.logits(network, noise.val_images), theirs)


def test_a_source_that_does_not_compile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(engine, "SOURCE", "not C")
    with pytest.raises(RuntimeError, match=r"^engine\.c: cannot be compiled: "):
        engine.attach(networks.build("bn_l1"), 1)
