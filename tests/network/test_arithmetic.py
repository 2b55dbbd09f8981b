"""The same bits on every kind of processor, by every compiler: what docs/arithmetic.md promises.

Where these differ and the operations of test_operations.py do not, it is the order of operations.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normlab.errors import InputError
from normlab.network import engine, known_answer, library, networks
from normlab.network.compiled import Processor
from normlab.training import machine, trial
from normlab.training.recipe import Data
from tests.conftest import NORM_PARAMS, PUBLISHED, VARIANTS, make_recipe
from tests.network import harness
from tests.network.harness import KINDS, Run, plan_of, use

# SHA-256 over weights, momentum and history of all trials of a variant: two epochs of 21 images in
# batches of 16, with and without L1, for every number of groups, with either affine; and of the
# published networks.
GOLDEN = {
    "bn_l1": "c940647c67516cc3468eb122d18c1c73530333d89fc4196d22582b69d160540a",
    "gn": "82affb03039c06593a2b3887bd69f04b2d0d0fc672db4fdfe978fbf497c49e7d",
    "ln": "5c3b6f0636c9e2841688f0b30d6b8ccf16c77670be6d947941bac2d9225f4bc7",
    "published": "027eedd0b75f9d88c732cae9104ec18d7cfa7ae5666c79ed9047b5e990078732",
}
CASES: dict[str, list[dict[str, Any]]] = {
    "bn_l1": [{"l1_lambda": 1e-3}, {"l1_lambda": None, "nesterov": False, "momentum": 0.0}],
    "gn": [{"norm_params": {"gn_groups": groups}} for groups in (1, 2, 3, 4, 5, 6, 7, 12, 14, 16)],
    "ln": [{"norm_params": {"ln_affine": affine}} for affine in ("elementwise", "channel")],
    "published": [
        {"variant": variant, "norm_params": norm_params}
        for variant, norm_params in [
            *PUBLISHED,
            *((v, NORM_PARAMS[v] | {"norm_place": "before_relu"}) for v in VARIANTS),
        ]
    ],
}

train = engine.train


def data() -> Data:
    """The same everywhere, of whole numbers alone."""
    i, y, x = np.ogrid[:41, :28, :28]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(41) * 7 % 10).astype(np.uint8)
    return Data(images[:21], labels[:21], images[21:], labels[21:])


def golden(name: str) -> str:
    digest = hashlib.sha256()
    for case in CASES[name]:
        fields: dict[str, Any] = {"variant": name, "batch_size": 16} | case
        recipe = make_recipe(**fields)
        state = trial.start(recipe, 5)
        for _ in range(recipe.epochs):
            state = trial.train_epoch(recipe, state, data())
            for arrays in (state.weights, state.momentum):
                digest.update(engine.fingerprint(arrays).encode())
            digest.update(repr(state.row).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("variant", CASES)
def test_every_kind_of_processor_trains_to_the_same_bits(
    variant: str, kind: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(kind, monkeypatch)
    assert golden(variant) == GOLDEN[variant]


@pytest.mark.parametrize("variant", CASES)
def test_an_arm64_processor_trains_to_the_same_bits(
    variant: str, arm64: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "run", arm64)
    assert golden(variant) == GOLDEN[variant]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_another_compiler_trains_to_the_same_bits(
    kind: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clang = shutil.which("clang-19")
    if not clang:
        pytest.skip("needs clang-19")
    monkeypatch.setattr(library, "run", harness.runner(tmp_path, kind, [clang]))
    for variant in CASES:
        assert golden(variant) == GOLDEN[variant]


def test_libraries_that_know_nothing_of_the_processor_train_to_the_same_bits() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    denied = {
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "OPENBLAS_CORETYPE": "Prescott",
    }
    script = "import tests.network.test_arithmetic as t; print(*(t.golden(v) for v in t.CASES))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | denied,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(GOLDEN.values())


def one_bit_off(*job: Any) -> tuple[Any, ...]:
    """Train as the engine does, and return one weight with another last bit."""
    weights, *others = train(*job)
    first = weights["conv1.weight"].reshape(-1)[:1]
    np.nextafter(first, np.float32(1), out=first)
    return weights, *others


@pytest.mark.parametrize("checked", [0, 1])
def test_a_machine_that_computes_other_numbers_is_refused(
    checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant, norm_params = PUBLISHED[-1]
    recipe = make_recipe(variant, norm_params=norm_params)
    machine.resolve(recipe)
    plan = plan_of(networks.build("bn_l1"))
    flags = ctypes.c_int.in_dll(library.load(plan), "checked")
    assert flags.value == 3
    monkeypatch.setattr(flags, "value", checked)
    monkeypatch.setattr(engine, "train", one_bit_off)
    answer = known_answer.PUBLISHED if checked else known_answer.ARITHMETIC
    refused = rf"^engine: this machine computes other numbers \(.*allowed: {answer}$"
    with pytest.raises(InputError, match=refused):
        trial.train_epoch(replace(recipe, epochs=1), trial.start(recipe, 0), data())


def test_todays_networks_keep_their_version_whatever_others_have() -> None:
    """By which their checkpoints are named."""
    usual = machine.resolve(make_recipe("ln"))
    assert usual.arithmetic == "engine 6be620a4b8b0118d"
    for variant, norm_params in [*PUBLISHED, ("gn", {"gn_groups": 4, "norm_place": "before_relu"})]:
        other = machine.resolve(make_recipe(variant, norm_params=norm_params))
        assert other.arithmetic == f"{usual.arithmetic} {known_answer.PUBLISHED}"
