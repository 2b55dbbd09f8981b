"""Does this machine compute what all others do? A few steps whose outcome is known."""

import ctypes
import hashlib
from typing import Any

import numpy as np

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, engine, networks, plans

ARITHMETIC = "6be620a4b8b0118d"
"""The known answer, and so the version of all that decides the bits: whoever changes those, and
means to, changes this too."""


def check() -> None:
    """See, once per process, that this machine computes what all others do.

    Raises
    ------
    InputError
        If it does not, or the engine cannot be compiled or loaded here.
    """
    reference = plans.plan(networks.build("bn_l1"), augment.SIDE)
    assert isinstance(reference, plans.Plan)
    checked = ctypes.c_int.in_dll(engine.library(reference), "checked")
    if checked.value:
        return
    got = known_answer()
    if got != ARITHMETIC:
        raise InputError(
            f"engine: this machine computes other numbers ({compiled.processor().name}, NumPy "
            f"{np.__version__}): the known answer came out as {got}, allowed: {ARITHMETIC}"
        )
    checked.value = 1


def known_answer() -> str:
    """Digest of a few steps of each normalization, from the first random number to the loss."""
    digest = hashlib.sha256()
    count = 20
    i, y, x = np.ogrid[:count, : augment.SIDE, : augment.SIDE]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    settings: dict[str, dict[str, Any]] = {
        "bn_l1": {},
        "gn": {"gn_groups": 4},
        "ln": {"ln_affine": "elementwise"},
    }
    for variant, setting in settings.items():
        rng = np.random.default_rng(0)
        network = networks.build(variant, **setting)
        networks.initialize(network, rng)
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        found = plans.plan(network, augment.SIDE)
        assert isinstance(found, plans.Plan)
        velocity = {name: np.zeros_like(weights[name]) for name, _ in found.parameters}
        maps = augment.draw(rng, count, augment.Ranges(10, 0.1, (0.8, 1.2), 8))
        examples = engine.Examples(images, labels, rng.permutation(count), maps)
        after = engine.train(
            found, weights, velocity, engine.Recipe(8, 0.1, 0.9, True, 1e-4), examples
        )
        digest.update(f"{after[2:]} {engine.measure(found, after[0], images, labels)[:2]}".encode())
        digest.update(f"{engine.fingerprint(after[0])} {engine.fingerprint(after[1])}".encode())
    return digest.hexdigest()[:16]
