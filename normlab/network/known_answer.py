"""Does this machine compute what all others do? A few steps whose outcome is known."""

import ctypes
import hashlib
from typing import Any

import numpy as np

from normlab.data import augment
from normlab.errors import InputError
from normlab.network import compiled, engine, library, networks, plans
from normlab.network.plans import Layer, Plan

ARITHMETIC = "6be620a4b8b0118d"
"""The known answer, and so the version of all that decides the bits: whoever changes those, and
means to, changes this too."""
PUBLISHED = "6a0acb9f88159d41"
"""The known answer of what only networks of some studies have, for these alone: the version of all
others, by which their checkpoints are named, does not change with it."""
COUNT = 20
Networks = list[tuple[str, dict[str, Any]]]
NETWORKS: Networks = [
    ("bn_l1", {}),
    ("gn", {"gn_groups": 4}),
    ("ln", {"ln_affine": "elementwise"}),
]
"""The kinds of normalization, after ReLU."""
BEFORE_RELU: dict[str, Any] = {"norm_place": "before_relu", "conv3_padding": 1}
PUBLISHED_NETWORKS: Networks = [
    *((variant, norm_params | BEFORE_RELU) for variant, norm_params in NETWORKS),
    ("ln", {"ln_affine": "elementwise", "ln_axes": "last"} | BEFORE_RELU),
]
"""Before ReLU, over the last axis alone, and with padding around a kernel of 1, as the reference's
published notebook has them."""


def check(plan: Plan) -> str:
    """See, once per process, that this machine computes what all others do.

    Returns
    -------
    The version of the arithmetic of this plan's networks.

    Raises
    ------
    InputError
        If it does not, or the engine cannot be compiled or loaded here.
    """
    reference = plans.plan(networks.build("bn_l1"))
    assert isinstance(reference, Plan)
    checked = ctypes.c_int.in_dll(library.load(reference), "checked")
    answers = [(ARITHMETIC, NETWORKS)]
    if any(_is_published(layer) for layer in plan.layers):
        answers.append((PUBLISHED, PUBLISHED_NETWORKS))
    for bit, (answer, of) in enumerate(answers):
        if checked.value & 1 << bit:
            continue
        if (got := known_answer(of)) != answer:
            raise InputError(
                f"engine: this machine computes other numbers ({compiled.processor().name}, NumPy "
                f"{np.__version__}): the known answer came out as {got}, allowed: {answer}"
            )
        checked.value |= 1 << bit
    return " ".join(answer for answer, _ in answers)


def _is_published(layer: Layer) -> bool:
    return layer.norm == plans.ROW or layer.norm_first or layer.pad >= layer.kernel


def known_answer(of: Networks) -> str:
    """Digest of a few steps of each network, from the first random number to the loss."""
    digest = hashlib.sha256()
    i, y, x = np.ogrid[:COUNT, : augment.SIDE, : augment.SIDE]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(COUNT) % 10).astype(np.uint8)
    recipe = engine.Recipe(batch_size=8, lr=0.1, momentum=0.9, nesterov=True, l1=1e-4)
    for variant, norm_params in of:
        rng = np.random.default_rng(0)
        network = networks.build(variant, **norm_params)
        networks.initialize(network, rng)
        before = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        plan = plans.plan(network)
        assert isinstance(plan, Plan)
        at_rest = {name: np.zeros_like(before[name]) for name, _ in plan.parameters}
        maps = augment.draw(rng, COUNT, augment.Ranges(10, 0.1, (0.8, 1.2), 8))
        examples = engine.Examples(images, labels, rng.permutation(COUNT), maps)
        weights, velocity, *trained = engine.train(plan, before, at_rest, recipe, examples)
        measured = engine.measure(plan, weights, images, labels)
        digest.update(f"{tuple(trained)} {measured[:2]}".encode())
        digest.update(f"{engine.fingerprint(weights)} {engine.fingerprint(velocity)}".encode())
    return digest.hexdigest()[:16]
