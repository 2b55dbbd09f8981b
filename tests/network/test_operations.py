"""Every operation of the engine: one result on every processor, and the right one.

Where a hash of these differs between two machines, that operation is why their models differ.
"""

import ctypes
import hashlib
import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from normlab.data import augment
from normlab.network import compiled, library, networks, plans
from normlab.network.compiled import Processor
from tests.network import harness
from tests.network.harness import KINDS, Run, plan_of

# Over the results for all special values and a million random ones, NaN counting as NaN.
OPERATIONS = {
    "fused": "212e6db229a9bc00",
    "choose": "f9579ccba814609a",
    "larger": "0829e2ca964ba82a",
    "square_root": "b5e2f1dab51bbde1",
    "round_to_even": "57166247c72a6346",
    "sum_lanes": "6a132d041540f8e8",
    "divide": "e3b349172cd19437",
    "nearest_pixel": "b66e5ca3cd01c317",
    "relu": "92e74b90794bb08f",
    "multiply": "898e831897ead76c",
    "add": "dc606c1313ac034b",
    "exponential": "d3ac04fbede8a3a0",
    "logarithm": "1a87ea967ec70fb0",
}
SPECIAL = [0.0, 1.0, 1.5, 0.5, 3.0, math.pi, 1e-38, 1e38, 2.0**-149, 2.0**-126, 2.0**24 + 2, 28.0]
SPECIAL += [1 - 2.0**-24, 1 + 2.0**-23, 3.4028234663852886e38, math.inf]
COUNT = 2**20


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


def double_operands(name: str) -> np.ndarray:
    """Where `exponential` and `logarithm` are defined, half of them near the end of that."""
    rng = np.random.default_rng(2)
    x = np.concatenate([-760 * rng.random(COUNT // 2), -(rng.random(COUNT // 2) ** 8)])
    return -x * 1e3 + 1 if name == "logarithm" else x


def operate(name: str, run: Run) -> np.ndarray:
    number = list(OPERATIONS).index(name)
    if number < 11:
        a, b, c = operands()
        if name == "round_to_even":  # as `nearest_pixel` uses it
            a = np.nan_to_num(a).clip(-(2.0**22) + 1, 2.0**22 - 1)
    else:
        last = 0.0 if name == "exponential" else 1.0
        a = b = c = np.concatenate([double_operands(name), [last] * 16]).view(np.float32)
    out = np.empty_like(a)
    members = {"parameters": a.copy(), "velocity": b.copy(), "running": c.copy(), "logits": out}
    job = library.new_job(count=len(a), batch_size=number, **members)
    run("operate", plan_of(networks.build("bn_l1")), job)
    return out if number < 11 else out.view(np.float64)


def hashed(values: np.ndarray) -> str:
    canonical = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return hashlib.sha256(canonical.tobytes()).hexdigest()[:16]


@cache
def native(kind: Processor) -> Run:
    source = library.source(plan_of(networks.build("bn_l1")), kind) + harness.OPERATIONS
    loaded = compiled.load(source, kind)

    def run(name: str, _: plans.Plan, job: Any) -> None:
        getattr(loaded, name)(ctypes.byref(job))

    return run


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_on_every_kind(name: str, kind: Processor) -> None:
    assert hashed(operate(name, native(kind))) == OPERATIONS[name]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_the_same_on_arm64(name: str, arm64: Run) -> None:
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
            bits(operate("relu", run)), bits(np.where(a > 0, a, np.float32(0)))
        )
        np.testing.assert_array_equal(bits(operate("choose", run)), bits(np.where(a < b, b, c)))
        at = operate("nearest_pixel", run)
        expected = np.rint(np.where(a > -1, np.where(a < 28, a, 28), -1))
    assert ((at >= -1) & (at <= 28)).all()
    np.testing.assert_array_equal(at, expected.astype(np.float32))


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize(("name", "units"), [("exponential", "1.2"), ("logarithm", "1")])
def test_exponential_and_logarithm_err_by_no_more_than_they_say(name: str, units: str) -> None:
    out, x = operate(name, native(KINDS[0])), double_operands(name)
    rng = np.random.default_rng(4)
    worst = Decimal(0)
    with localcontext() as context:
        context.prec = 40
        for i in rng.choice(COUNT, 10_000, replace=False):
            value = Decimal(float(x[i]))
            if x[i] <= -700:
                assert out[i] == 0
                continue
            true = value.exp() if name == "exponential" else value.ln()
            unit = Decimal(float(np.spacing(float(true)))) if true else Decimal(1)
            worst = max(worst, abs(Decimal(float(out[i])) - true) / unit)
    assert worst < Decimal(units)
    assert out[-1] == (1.0 if name == "exponential" else 0.0)


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
