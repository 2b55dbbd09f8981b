"""What the page says and draws of findings and effects, and of what they do not show."""

import re
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from normlab.evidence import intervals, readings
from normlab.evidence.verdicts import TIMES
from normlab.formatting import MINUS
from normlab.report import page as report
from normlab.report import sections
from normlab.report.inputs import Inputs
from tests.report.test_page import text


@dataclass
class Place:
    values: dict[str, Any]
    order: list[str]


@pytest.mark.parametrize(
    "place",
    [
        Place(
            {"effect": -0.1, "low": -0.3, "high": 0.1, "smallest_effect": 0.2},
            ["low", "left", "at", "zero", "high", "right"],
        ),
        Place(
            {"effect": 0.5, "low": 0.4, "high": 0.8, "smallest_effect": 1.1, "unit": "times"},
            ["low", "at", "high", "left", "zero", "right"],
        ),
        Place(
            {"effect": 0.4, "low": 0.3, "high": 0.6, "smallest_effect": 0.1},
            ["left", "zero", "right", "low", "at", "high"],
        ),
        Place(
            {"effect": 36.0, "low": None, "high": None, "smallest_effect": 2.0, "unit": "times"},
            ["left", "zero", "right", "at"],
        ),
    ],
)
def test_an_effect_is_placed_in_order_and_in_sight(place: Place) -> None:
    drawn = report.effect({"unit": "points"} | place.values)
    assert drawn
    assert sorted(drawn, key=lambda name: drawn[name]) == place.order
    assert all(0 < at < 100 for at in drawn.values())


def test_pairs_are_placed_on_one_scale() -> None:
    pairs = [
        {"difference": 0.001, "low": -0.001, "high": 0.003},
        {"difference": -0.004, "low": -0.008, "high": 0.0},
    ]
    one, other = report.on_one_scale(pairs, 0.002)
    assert {name: one[name] for name in ("left", "zero", "right")} == {
        name: other[name] for name in ("left", "zero", "right")
    }
    # As the numbers are: equal lengths for equal differences, from either pair.
    length = one["at"] - one["zero"]
    assert one["high"] - one["zero"] == pytest.approx(3 * length, abs=0.05)
    assert other["zero"] - other["low"] == pytest.approx(8 * length, abs=0.1)
    assert one["right"] - one["left"] == pytest.approx(4 * length, abs=0.05)
    assert 0 < min(*one.values(), *other.values()) < max(*one.values(), *other.values()) < 100
    assert report.on_one_scale([], 0.002) == []


def test_a_finding_tells_how_firm_it_is(inputs: Inputs) -> None:
    name, finding = next((n, f) for n, f in inputs.findings.items() if f["error_ratio"])

    def rows(**changes: Any) -> dict[str, str]:
        findings = dict(inputs.findings) | {name: finding | changes}
        made = report.render(inputs._replace(findings=findings))
        card = re.search(rf'id="finding-{name}">(.*?)</li>', made, re.DOTALL)
        assert card
        return {
            text(row): text(cell)
            for row, cell in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", card[1], re.DOTALL)
        }

    said = rows(
        **{"unit": "points", "low": -0.003, "high": -0.001, "holds_from": 0.0, "holds_to": 0.003},
        **{
            "near": True,
            "changed_by_one": True,
            "seeds_needed": 1234,
            "seeds": 10,
            "level": 0.9975,
        },
    )
    assert said["Interval"] == (
        f"{MINUS}0.30 points … {MINUS}0.10 points at 99.75 %, all together 95 %"
    )
    assert said["The verdict holds"] == (
        "if the smallest that matters is at most 0.30 points changes if one trial or another is "
        "left out; permutations drawn anew may change it"
    )
    assert said["To settle it"].startswith("1,234 seeds an arm")
    assert said["Trials"] == f"{finding['trials']} 10 seeds an arm"
    assert said["As a ratio of errors"].endswith(f": {finding['error_ratio_verdict']}")
    assert said["p"].startswith(f"{finding['p']:.2g}, adjusted {finding['p_adjusted']:.2g}")
    said = rows(
        **{"unit": "times", "holds_from": 1.2, "holds_to": None, "changed_by_one": None},
        **{"near": False, "seeds_needed": None, "error_ratio": None, "effect": 2.0},
        **{"low": 1.0, "high": 4.0, "smallest_effect": 1.1},
    )
    assert said["The verdict holds"] == (
        f"if the smallest that matters is above {TIMES} 1.2 too few seeds to leave one out"
    )
    assert not {"To settle it", "As a ratio of errors"} & {*said}
    both = rows(unit="points", holds_from=0.001, holds_to=0.004, changed_by_one=False, near=False)
    assert both["The verdict holds"] == (
        "if the smallest that matters is at most 0.40 points and at least 0.10 points "
        "the same whichever one trial is left out"
    )


def test_every_verdict_has_a_sign_of_its_own() -> None:
    assert set(report.BADGES) == {*get_args(readings.Verdict), *get_args(intervals.Verdict)}
    signs = [report.BADGES[verdict] for verdict in get_args(readings.Verdict)]
    assert len({*signs}) == len(signs)


def test_limits_and_the_correction_are_told_with_the_tables_numbers(
    inputs: Inputs, page: str
) -> None:
    section = re.search(r'<section id="limits">.*?</section>', page, re.DOTALL)
    assert section
    said = text(section[0])
    least = min(m["parameters"]["mean"] for m in inputs.metrics.values())
    assert f"One network of some {least:,.0f} parameters" in said
    assert "The three verdicts are withdrawn." in said
    count = sections.easier(inputs)
    arms = f"of the {count['arms']} arms of the studies of MNIST"
    assert f"below the test images in {count['easier']} {arms}" in said
    none = report.render(inputs._replace(studies={}))
    section = re.search(r'<section id="limits">.*?</section>', none, re.DOTALL)
    assert section
    assert "come out below the test images" not in text(section[0])
    assert "The three verdicts are withdrawn." in text(section[0])
