"""The engine under sanitizers: it reads and writes its own memory alone, whatever its shapes."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normlab.network import engine, library, networks
from normlab.network.architecture import REFERENCE, Architecture
from normlab.network.compiled import Processor
from tests.network import harness
from tests.network.harness import KINDS, plan_of

CLANG = shutil.which("clang-19")
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-sanitize=alignment",  # rows of registers begin where a multiple of a register does
]


@pytest.mark.skipif(not CLANG, reason="needs clang-19")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_step_and_no_prediction_leaves_its_memory(
    kind: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CLANG
    # Of two -O the last counts; to optimize takes ten times as long as all that is run here.
    monkeypatch.setattr(harness, "FLAGS", [*harness.FLAGS, "-O0"])
    run = harness.runner(tmp_path, kind, [CLANG, *SANITIZERS])
    monkeypatch.setattr(library, "run", run)
    rng = np.random.default_rng(0)
    padded = REFERENCE.with_padding(3, 1)
    shapes = [REFERENCE, padded, *(random_architecture(rng) for _ in range(3))]
    for shape in shapes:
        sizes = [1, 16, 21] if shape is REFERENCE else [5, 20]
        for size, (variant, norm_params) in itertools.product(sizes, NORM_PARAMS):
            network = networks.build(variant, shape, **norm_params)
            networks.initialize(network, rng)
            weights = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
            plan = plan_of(network, shape.side)
            images = rng.integers(0, 256, (size, shape.side, shape.side), dtype=np.uint8)
            labels = rng.integers(0, shape.classes, size, dtype=np.uint8)
            maps = rng.choice(
                np.array([np.nan, np.inf, -1e30, 0.5, 1, 3], np.float32), (size, 2, 3)
            )
            velocity = {name: np.zeros_like(weights[name]) for name, _ in plan.parameters}
            recipe = engine.Recipe(size, 0.01, 0.9, True, 0.1)
            examples = engine.Examples(images, labels, rng.permutation(size), maps)
            engine.train(plan, weights, velocity, recipe, examples)
            engine.measure(plan, weights, images, labels)


NORM_PARAMS: list[tuple[str, dict[str, Any]]] = [
    ("bn_l1", {}),
    ("gn", {"gn_groups": 4}),
    ("ln", {"ln_affine": "elementwise"}),
    ("ln", {"ln_affine": "channel"}),
    ("bn_l1", {"norm_place": "before_relu"}),
    ("ln", {"ln_affine": "elementwise", "ln_axes": "last"}),
    ("ln", {"ln_affine": "elementwise", "ln_axes": "last", "norm_place": "before_relu"}),
]


def random_architecture(rng: np.random.Generator) -> Architecture:
    side = int(rng.integers(7, 17))
    layers: list[tuple[int, int, int, int]] = []
    pools: list[int] = []
    channels, here = 1, side
    for i in (1, 2, 3):
        kernel, pad = int(rng.choice([1, 3])), int(rng.integers(2))
        if (after := here + 2 * pad - kernel + 1) < 2:
            break
        layers.append((channels, int(rng.integers(1, 20)), kernel, pad))
        channels, here = layers[-1][1], after
        if here >= 4 and rng.integers(2):
            pools.append(i)
            here //= 2
    return Architecture(side, int(rng.integers(2, 12)), tuple(layers), tuple(pools))
