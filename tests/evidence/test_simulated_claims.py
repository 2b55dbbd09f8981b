"""What `docs/statistics.md` says of intervals over seeds and of families is so."""

import math
import re
from pathlib import Path

import pytest

from tests.evidence import simulated_claims
from tests.evidence.simulated_claims import FAMILY, LEAST, NOISES, SEEDS

PAGE = (Path(__file__).parents[2] / "docs/statistics.md").read_text()
DOCUMENTED = {
    (noise, ratio): [float(cell) / 100 for cell in cells.split(" | ")]
    for noise, ratio, cells in re.findall(r"(?m)^\| ([\w -]+) \| (equal|1 to 3) \| (.+) \|$", PAGE)
}


def test_all_are_documented() -> None:
    assert set(DOCUMENTED) == {(noise, ratio) for noise in NOISES for ratio in ("equal", "1 to 3")}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("ratio", ["equal", "1 to 3"])
def test_coverage_is_as_documented(noise: str, ratio: str) -> None:
    repeats = 1500
    with simulated_claims.rounded_sums():
        found = simulated_claims.coverage(noise, 1 if ratio == "equal" else 3, SEEDS[0], repeats)
    documented = DOCUMENTED[noise, ratio][0], DOCUMENTED[noise, ratio][len(SEEDS)]
    for share, expected in zip(found, documented, strict=True):
        # Of the table too, which is rounded.
        error = math.sqrt(expected * (1 - expected) * (1 / repeats + 1 / 10_000)) + 5e-4
        assert share == pytest.approx(expected, abs=3.5 * error)


@pytest.mark.parametrize(
    ("effect", "wrong"),
    [(0, ["supported", "contradicted"]), (LEAST, ["no effect that matters"])],
)
def test_a_family_rarely_says_anything_wrong(effect: float, wrong: list[str]) -> None:
    repeats = 300
    with simulated_claims.rounded_sums():
        found = simulated_claims.wrong_families(effect, wrong, SEEDS[0], repeats)
    assert found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)


def test_a_family_rarely_overlooks_a_loss() -> None:
    repeats = 300
    with simulated_claims.rounded_sums():
        found = simulated_claims.losses_missed(SEEDS[0], repeats)
    # Each is wrong at one end of its interval alone.
    assert found <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / repeats)


def test_an_effect_of_twice_what_matters_is_found() -> None:
    with simulated_claims.rounded_sums():
        found = simulated_claims.share("contrast", "supported", 2 * LEAST, 5e-4, SEEDS[0], 200)
        trend = simulated_claims.share("trend", "supported", 2 * LEAST, 5e-4, SEEDS[0], 20)
    assert FAMILY == 20
    assert found == pytest.approx(1, abs=0.02)
    assert trend == pytest.approx(1, abs=0.1)
