"""The atlas says which normalization to take where, and whether the rule for the rate decides."""

import re
from typing import Any

import pytest

from normlab.report import atlas
from normlab.report.atlas import Place
from normlab.report.inputs import Inputs

LABELS = ("Batch norm", "Group norm", "Layer norm")
OPEN, ALIKE = ("open", 0.001), ("no effect that matters", 0.0001)
MORE, LESS = ("supported", 0.01), ("contradicted", -0.01)


def place(**verdicts: tuple[str, float]) -> Place:
    """Compare the three, two by two: batch with group, batch with layer, group with layer norm."""
    pairs = [(LABELS[0], LABELS[1]), (LABELS[0], LABELS[2]), (LABELS[1], LABELS[2])]
    found = [
        {"name": name, "compared": pair, "finding": {"verdict": verdict, "effect": effect}}
        for (name, (verdict, effect)), pair in zip(verdicts.items(), pairs, strict=True)
    ]
    return Place("somewhere", [{"label": label} for label in LABELS], found)


@pytest.mark.parametrize(
    ("bn_gn", "bn_ln", "gn_ln", "take"),
    [
        (MORE, MORE, OPEN, "Batch norm"),
        (LESS, MORE, MORE, "Group norm"),
        (OPEN, MORE, MORE, "Batch norm or group norm"),
        (OPEN, OPEN, MORE, "Batch norm or group norm"),
        (LESS, LESS, OPEN, "Group norm or layer norm"),
        (ALIKE, ALIKE, ALIKE, "Any: no difference matters"),
        (ALIKE, OPEN, ALIKE, "Any: no difference is shown"),
    ],
)
def test_what_is_not_shown_to_do_worse_is_taken(
    bn_gn: tuple[str, float], bn_ln: tuple[str, float], gn_ln: tuple[str, float], take: str
) -> None:
    assert place(bn_gn=bn_gn, bn_ln=bn_ln, gn_ln=gn_ln).take == take


def test_places_have_the_numbers_of_their_studies_claims_and_search(inputs: Inputs) -> None:
    places = atlas.places(inputs)
    assert [one.name for one in places] == [
        "1,000 images, batches of 32",
        *(f"10,000 images, batches of {size}" for size in (2, 8, 32, 128)),
        "55,000 images, batches of 32",
    ]
    named = [pair["name"] for one in places for pair in one.pairs]
    assert len(named) == len(set(named)) == 18
    for one in places:
        labels = [row["label"] for row in one.estimates]
        assert labels == list(LABELS)
        means = {row["label"]: row["mean"] for row in one.estimates}
        for pair in one.pairs:
            first, second = pair["compared"]
            assert pair["finding"]["effect"] == pytest.approx(
                means[first] - means[second], abs=2e-6
            )
        for row in one.estimates:
            own = inputs.study_params[row["study"]]["arms"][row["arm"]]
            assert row["rate"] == own["lr"]
            assert row["rate"] not in row["as_well"]


def test_the_page_shows_every_place_and_leaves_the_section_out_without_any(
    inputs: Inputs, page: str
) -> None:
    (section,) = re.findall(r'<section id="atlas">.*?</section>', page, re.DOTALL)
    for one in atlas.places(inputs):
        assert f'<th scope="row">{one.name}</th><td><b>{one.take}</b></td>' in section
        for pair in one.pairs:
            assert f'<a href="#finding-{pair["name"]}">' in section
    assert atlas.places(inputs._replace(studies={})) == []
    assert atlas.blocks(inputs._replace(studies={})) == []
    assert atlas.places(inputs._replace(rates=inputs.rates[:0])) == []


def with_verdict(inputs: Inputs, name: str, verdict: str) -> Inputs:
    finding: dict[str, Any] = inputs.findings[name] | {"verdict": verdict}
    return inputs._replace(findings={**inputs.findings, name: finding})


def test_where_the_rule_for_the_rate_decides_a_claim_it_is_said(inputs: Inputs) -> None:
    one, own = "bn_small_batch", "bn_small_batch_twin"
    same = with_verdict(with_verdict(inputs, one, "supported"), own, "supported")
    first, *others = atlas.by_either_rule(same)
    said = "“Batch norm degrades at small batch sizes” (Wu & He 2018, figure 1): supported"
    assert first == f"{said}, whichever rule gives the rate."
    assert len(others) == 2
    said += " where the rate is in proportion to the batch,"
    first, *_ = atlas.by_either_rule(with_verdict(same, own, "contradicted"))
    assert first == f"{said} contradicted where each has its own: the rule makes the difference."
    first, *_ = atlas.by_either_rule(with_verdict(same, own, "open"))
    assert first == f"{said} open where each has its own."
    assert atlas.by_either_rule(inputs._replace(findings={})) == []
