"""The same bits on every kind of processor, by every compiler: what docs/arithmetic.md promises.

Where a hash of an operation differs, that is the cause; where those agree and the ends do not, it
is the order of operations.
"""

import ctypes
import hashlib
import itertools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normlab.data import augment
from normlab.network import compiled, engine, networks, plans, tiles
from normlab.network.compiled import Processor
from normlab.training import machine, trial
from normlab.training.recipe import Data
from tests.conftest import make_recipe
from tests.network import harness
from tests.network.test_engine import KINDS, plan_of, use

# SHA-256 over weights, momentum and history of all trials of a variant: two epochs of 21 images in
# batches of 16, with and without L1, for every number of groups, with either affine.
GOLDEN = {
    "bn_l1": "c940647c67516cc3468eb122d18c1c73530333d89fc4196d22582b69d160540a",
    "gn": "82affb03039c06593a2b3887bd69f04b2d0d0fc672db4fdfe978fbf497c49e7d",
    "ln": "5c3b6f0636c9e2841688f0b30d6b8ccf16c77670be6d947941bac2d9225f4bc7",
}
# Over the results for all special values and a million random ones, NaN counting as NaN.
OPERATIONS = {
    "fused": "212e6db229a9bc00",
    "choose": "f9579ccba814609a",
    "larger": "0829e2ca964ba82a",
    "root": "b5e2f1dab51bbde1",
    "nearest": "57166247c72a6346",
    "total": "6a132d041540f8e8",
    "divide": "e3b349172cd19437",
    "pixel": "b66e5ca3cd01c317",
    "positive": "92e74b90794bb08f",
    "multiply": "898e831897ead76c",
    "add": "dc606c1313ac034b",
    "exponential": "d3ac04fbede8a3a0",
    "logarithm": "1a87ea967ec70fb0",
}
CASES: dict[str, list[dict[str, Any]]] = {
    "bn_l1": [{"l1_lambda": 1e-3}, {"l1_lambda": None, "nesterov": False, "momentum": 0.0}],
    "gn": [{"norm_params": {"gn_groups": groups}} for groups in (1, 2, 3, 4, 5, 6, 7, 12, 14, 16)],
    "ln": [{"norm_params": {"ln_affine": affine}} for affine in ("elementwise", "channel")],
}
SPECIAL = [
    *(0.0, 1.0, 1.5, 0.5, 3.0, math.pi, 1e-38, 1e38, 2.0**-149, 2.0**-126, 2.0**24 + 2, 28.0),
    *(1 - 2.0**-24, 1 + 2.0**-23, 3.4028234663852886e38, math.inf),
]
COUNT = 2**20


def data() -> Data:
    """The same everywhere, of whole numbers alone."""
    i, y, x = np.ogrid[:41, :28, :28]
    images = ((i + 3) * (y * y + 5 * x) % 256).astype(np.uint8)
    labels = (np.arange(41) * 7 % 10).astype(np.uint8)
    return Data(images[:21], labels[:21], images[21:], labels[21:])


def golden(variant: str) -> str:
    digest = hashlib.sha256()
    for case in CASES[variant]:
        recipe = make_recipe(variant, batch_size=16, **case)
        state = trial.start(recipe, 5)
        for _ in range(recipe.epochs):
            state = trial.train_epoch(recipe, state, data())
            for arrays in (state.weights, state.momentum):
                digest.update(engine.fingerprint(arrays).encode())
            digest.update(repr(state.row).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("variant", CASES)
def test_every_kind_of_processor_gives_the_golden_hash(
    variant: str, kind: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(kind, monkeypatch)
    assert golden(variant) == GOLDEN[variant]


ANCIENT = {
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "",
    "OPENBLAS_CORETYPE": "Prescott",
}


def test_what_libraries_know_of_the_processor_does_not_matter() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    features = " ".join(found["found"])
    script = "import tests.network.test_arithmetic as t; print(*(t.golden(v) for v in t.CASES))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | ANCIENT | {"NPY_DISABLE_CPU_FEATURES": features},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(GOLDEN.values())


needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-aarch64"), reason="needs qemu-aarch64, of Debian's qemu-user"
)
CLANG = shutil.which("clang-19")
needs_clang = pytest.mark.skipif(not CLANG, reason="needs clang-19")
STATIC = (*harness.ZIG, "-target", "aarch64-linux-musl", "-static")


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    folder = tmp_path_factory.mktemp("arm64")
    return harness.runner(folder, compiled.ARM64, STATIC, ["qemu-aarch64"])


@needs_qemu
@pytest.mark.parametrize("variant", CASES)
def test_an_arm64_processor_gives_the_golden_hash(
    variant: str, arm64: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", arm64)
    assert golden(variant) == GOLDEN[variant]


@needs_clang
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_another_version_of_the_compiler_gives_the_golden_hash(
    kind: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CLANG
    monkeypatch.setattr(engine, "run", harness.runner(tmp_path, kind, [CLANG]))
    for variant in CASES:
        assert golden(variant) == GOLDEN[variant]


def operands() -> tuple[np.ndarray, ...]:
    """All triples of special values, with either sign, then random bits and random numbers."""
    signed = [*SPECIAL, *(-value for value in SPECIAL), math.nan]
    triples = np.array(list(itertools.product(signed, repeat=3)), np.float32)
    bits = np.random.default_rng(0).integers(2**32, size=(COUNT // 2, 3), dtype=np.uint32)
    near = np.random.default_rng(1).integers(-(2**24), 2**24, size=(COUNT // 2, 3))
    # Quiet ones: arithmetic makes no signalling NaN, and what a comparison's select makes of one is
    # the compiler's.
    bits[(bits & 0x7FFFFFFF) > 0x7F800000] |= 0x00400000
    both = np.concatenate([triples, bits.view(np.float32), (near / 2**20).astype(np.float32)])
    whole = np.resize(both, (-(-len(both) // 16) * 16, 3))
    return tuple(np.ascontiguousarray(column) for column in whole.T)


def operate(name: str, run: Callable[..., None]) -> np.ndarray:
    number = list(OPERATIONS).index(name)
    if number < 11:
        a, b, c = operands()
        if name == "nearest":  # as `pixel` uses it
            a = np.nan_to_num(a).clip(-(2.0**22) + 1, 2.0**22 - 1)
    else:
        rng = np.random.default_rng(2)
        x = np.concatenate([-760 * rng.random(COUNT // 2), -(rng.random(COUNT // 2) ** 8)])
        x = -x * 1e3 + 1 if name == "logarithm" else x
        a = np.concatenate([x, [0.0 if number == 11 else 1.0] * 16]).view(np.float32)
        b = c = a
    out = np.empty_like(a)
    members = {"parameters": a.copy(), "velocity": b.copy(), "statistics": c.copy(), "logits": out}
    job = engine.job(count=len(a), batch_size=number, **members)
    run("operate", plan_of(networks.build("bn_l1")), job)
    return out if number < 11 else out.view(np.float64)


def hashed(values: np.ndarray) -> str:
    canonical = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return hashlib.sha256(canonical.tobytes()).hexdigest()[:16]


@cache
def native(kind: Processor) -> Callable[..., None]:
    source = (
        tiles.source(plan_of(networks.build("bn_l1")), kind, engine.MEMBERS) + harness.OPERATIONS
    )
    library = compiled.load(source, kind)

    def run(name: str, _: plans.Plan, job: Any) -> None:
        getattr(library, name)(ctypes.byref(job))

    return run


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_on_every_kind(name: str, kind: Processor) -> None:
    assert hashed(operate(name, native(kind))) == OPERATIONS[name]


@needs_qemu
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_on_arm64(name: str, arm64: Callable[..., None]) -> None:
    assert hashed(operate(name, arm64)) == OPERATIONS[name]


def exact(value: float) -> Fraction:
    return Fraction(float(value))


def rounded(value: Fraction) -> np.float32:
    """A rational to the nearest float32, ties to even, subnormal ones included."""
    if value == 0:
        return np.float32(0)
    size = abs(value)
    exponent = max(math.floor(math.log2(size)) - 23, -149)
    while size / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    while exponent > -149 and size / Fraction(2) ** exponent < 2**23:
        exponent -= 1
    digits = round(size / Fraction(2) ** exponent)  # Python's rounding is to even
    with np.errstate(over="ignore"):
        return np.float32(math.copysign(math.ldexp(digits, exponent), value))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_fused_multiply_add_is_rounded_once(kind: Processor) -> None:
    out = operate("fused", native(kind))
    a, b, c = operands()
    rng = np.random.default_rng(3)
    checked = 0
    for i in [*rng.choice(len(a), 20_000, replace=False), *range(0, 30_000, 7)]:
        if np.isfinite([a[i], b[i], c[i]]).all():
            assert out[i] == rounded(exact(a[i]) * exact(b[i]) + exact(c[i])), (a[i], b[i], c[i])
            checked += 1
    assert checked > 15_000


def test_ties_signed_zeros_and_nan_have_one_result() -> None:
    run = native(KINDS[0])
    a, b, c = operands()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(bits(operate("larger", run)), bits(np.where(a > b, a, b)))
        np.testing.assert_array_equal(
            bits(operate("positive", run)), bits(np.where(a > 0, a, np.float32(0)))
        )
        np.testing.assert_array_equal(bits(operate("choose", run)), bits(np.where(a < b, b, c)))
        at = operate("pixel", run)
        expected = np.rint(np.where(a > -1, np.where(a < 28, a, 28), -1))
    assert ((at >= -1) & (at <= 28)).all()
    np.testing.assert_array_equal(at, expected.astype(np.float32))


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize(("name", "least"), [("exponential", 0.0), ("logarithm", 1.0)])
def test_exponential_and_logarithm_err_by_less_than_a_unit_in_the_last_place(
    name: str, least: float
) -> None:
    out = operate(name, native(KINDS[0]))
    rng = np.random.default_rng(2)
    x = np.concatenate([-760 * rng.random(COUNT // 2), -(rng.random(COUNT // 2) ** 8)])
    x = -x * 1e3 + 1 if name == "logarithm" else x
    worst = Decimal(0)
    with localcontext() as context:
        context.prec = 40
        for i in rng.choice(COUNT, 3000, replace=False):
            value = Decimal(float(x[i]))
            if x[i] <= -700:
                assert out[i] == 0
                continue
            true = value.exp() if name == "exponential" else value.ln()
            unit = Decimal(float(np.spacing(float(true)))) if true else Decimal(1)
            worst = max(worst, abs(Decimal(float(out[i])) - true) / unit)
    assert worst < 1
    assert out[-1] == (1.0 if least == 0 else 0.0)


PI = Decimal("3.14159265358979323846264338327950288419716939937510")


def series(x: Decimal, first: int) -> Decimal:
    """Taylor's of the cosine (`first` 0) or the sine (1), to the context's digits for |x| <= 2π."""
    term, total = x if first else Decimal(1), Decimal(0)
    for n in range(first, 80, 2):
        total += term
        term *= -x * x / ((n + 1) * (n + 2))
    return total


def test_sine_and_cosine_err_by_no_more_than_they_say() -> None:
    degrees = np.concatenate([np.linspace(-360, 360, 2_881), [1e-9, 89.999, 1 / 3]])
    sin, cos = augment.sin_cos(degrees)
    with localcontext() as context:
        context.prec = 40
        for x, s, c in zip(degrees, sin, cos, strict=True):
            radians = Decimal(float(x)) * PI / 180
            assert abs(Decimal(float(s)) - series(radians, 1)) < Decimal("2.3e-16")
            assert abs(Decimal(float(c)) - series(radians, 0)) < Decimal("2.3e-16")
    assert [float(v) for v in augment.sin_cos(90.0)] == [1, 0]
    assert [float(v) for v in augment.sin_cos(-180.0)] == [0, -1]


def test_a_machine_that_computes_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    machine.resolve(recipe)
    found = plan_of(networks.build("bn_l1"))
    ctypes.c_int.in_dll(engine.library(found), "checked").value = 0
    monkeypatch.setattr(networks, "STD", 0.3)
    monkeypatch.setattr(networks, "SCALE", 1 / (255 * 0.3))
    with pytest.raises(
        Exception, match=r"^engine: this machine computes other numbers \(.*allowed"
    ):
        trial.train_epoch(replace(recipe, epochs=1), trial.start(recipe, 0), data())
