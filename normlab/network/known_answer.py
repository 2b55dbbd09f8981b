"""Does this machine compute what all others do? A few steps whose outcome is known."""

import ctypes
import hashlib
from typing import Any

import numpy as np

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, engine, library, networks, plans

ARITHMETIC = "6be620a4b8b0118d"
"""The known answer, and so the version of all that decides the bits: whoever changes those, and
means to, changes this too."""
COUNT = 20
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("bn_l1", {}),
    ("gn", {"gn_groups": 4}),
    ("ln", {"ln_affine": "elementwise"}),
]
"""Every kind of normalization that the engine knows."""


def check() -> None:
    """See, once per process, that this machine computes what all others do.

    Raises
    ------
    InputError
        If it does not, or the engine cannot be compiled or loaded here.
    """
    reference = plans.plan(networks.build("bn_l1"), augment.SIDE)
    assert isinstance(reference, plans.Plan)
    checked = ctypes.c_int.in_dll(library.load(reference), "checked")
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
    i, y, x = np.ogrid[:COUNT, : augment.SIDE, : augment.SIDE]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(COUNT) % 10).astype(np.uint8)
    recipe = engine.Recipe(batch_size=8, lr=0.1, momentum=0.9, nesterov=True, l1=1e-4)
    for variant, norm_params in NETWORKS:
        rng = np.random.default_rng(0)
        network = networks.build(variant, **norm_params)
        networks.initialize(network, rng)
        before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        plan = plans.plan(network, augment.SIDE)
        assert isinstance(plan, plans.Plan)
        at_rest = {name: np.zeros_like(before[name]) for name, _ in plan.parameters}
        maps = augment.draw(rng, COUNT, augment.Ranges(10, 0.1, (0.8, 1.2), 8))
        examples = engine.Examples(images, labels, rng.permutation(COUNT), maps)
        weights, velocity, *trained = engine.train(plan, before, at_rest, recipe, examples)
        measured = engine.measure(plan, weights, images, labels)
        digest.update(f"{tuple(trained)} {measured[:2]}".encode())
        digest.update(f"{engine.fingerprint(weights)} {engine.fingerprint(velocity)}".encode())
    return digest.hexdigest()[:16]
