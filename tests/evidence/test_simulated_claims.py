"""What `docs/statistics.md` says of intervals over seeds and of families is so."""

import math
import re
from pathlib import Path

import pytest

from normlab.evidence.readings import Kind, Verdict
from tests.evidence import simulated_claims
from tests.evidence.simulated_claims import FAMILY, LEAST, NOISES, SEEDS

PAGE = (Path(__file__).parents[2] / "docs/statistics.md").read_text()
DOCUMENTED = {
    (noise, ratio): [float(cell) / 100 for cell in cells.split(" | ")]
    for noise, ratio, cells in re.findall(r"(?m)^\| ([\w -]+) \| (equal|1 to 3) \| (.+) \|$", PAGE)
}


SHARES = {
    about: [float(cell) / 100 for cell in cells.split(" | ")]
    for about, cells in re.findall(r"(?m)^\| (.+?) \| ([\d. |]+) \|$", PAGE)
}


def test_all_are_documented() -> None:
    assert f"one of {FAMILY} statements" in PAGE
    assert set(DOCUMENTED) == {(noise, ratio) for noise in NOISES for ratio in ("equal", "1 to 3")}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("ratio", ["equal", "1 to 3"])
def test_coverage_is_as_documented(noise: str, ratio: str) -> None:
    repeats = 1500
    with simulated_claims.rounded_sums():
        found = simulated_claims.coverage(noise, 1 if ratio == "equal" else 3, SEEDS[0], repeats)
    documented = DOCUMENTED[noise, ratio][0], DOCUMENTED[noise, ratio][len(SEEDS)]
    for share, expected in zip(found, documented, strict=True):
        assert within(share, expected, repeats, 10_000)


def within(found: float, expected: float, repeats: int, documented: int) -> bool:
    """Whether a share is what is documented, but for the noise of both and the rounding."""
    error = math.sqrt(expected * (1 - expected) * (1 / repeats + 1 / documented)) + 5e-4
    return abs(found - expected) <= 3.5 * error


@pytest.mark.parametrize(
    ("about", "effect", "wrong"),
    [
        ("0 | supported or contradicted", 0, ["supported", "contradicted"]),
        ("as large as matters | no effect that matters", LEAST, ["no effect that matters"]),
    ],
)
def test_families_say_anything_wrong_as_rarely_as_documented(
    about: str, effect: float, wrong: list[str]
) -> None:
    repeats = 1000
    with simulated_claims.rounded_sums():
        found = simulated_claims.wrong_families(effect, wrong, SEEDS[0], repeats)
    assert max(SHARES[about]) <= 0.05
    assert within(found, SHARES[about][0], repeats, 4000)


def test_families_overlook_a_loss_as_rarely_as_documented() -> None:
    repeats, about = 1000, "a loss as large as matters | no loss, supported"
    with simulated_claims.rounded_sums():
        found = simulated_claims.losses_missed(SEEDS[0], repeats)
    # Each is wrong at one end of its interval alone.
    assert max(SHARES[about]) <= 0.025
    assert within(found, SHARES[about][0], repeats, 4000)


@pytest.mark.parametrize(
    ("kind", "effect", "repeats", "documented"),
    [("contrast", 1, 2000, 4000), ("contrast", 0, 2000, 4000), ("trend", 1, 100, 1000)],
)
def test_effects_are_found_as_often_as_documented(
    kind: Kind, effect: int, repeats: int, documented: int
) -> None:
    said: Verdict = "supported" if effect else "no effect that matters"
    expected = SHARES[f"{kind} | {effect} | 0.05 | {said}"][0]
    with simulated_claims.rounded_sums():
        found = simulated_claims.share(kind, said, effect * LEAST, 5e-4, SEEDS[0], repeats)
    assert within(found, expected, repeats, documented)
