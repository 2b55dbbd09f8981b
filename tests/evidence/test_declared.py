"""Claims are read, and what is wrong in them is named; the committed findings are theirs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from normlab import studies
from normlab.errors import InputError
from normlab.evidence import claims, declared
from stages import judge

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "studies/claims.yaml"
BN_TERM = "      - {weight: -1, variant: bn_l1}\n"
TWO_TERMS = "    contrast:\n      - {weight: 1, arm: instance_layer}\n"
STANDINGS = {"registered", "post hoc", "cannot be seen"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test: trend", "test: guess", "groups_accuracy.test: got 'guess', allowed: trend, "),
        ("direction: higher", "direction: up", "direction: got 'up', allowed: higher or lower"),
        ("smallest_effect: 0.001", "smallest_effect: 0", "smallest_effect: got 0, allowed: a "),
        ("source:", "sauce:", "groups_accuracy.source: got nothing, allowed: who claims it"),
        ("subject:", "topic: x\n    subject:", "topic: unknown key, allowed: claim, source, "),
        ("reported: {", "told: {", "reported: got nothing, allowed: accuracies by variant"),
        ("test: trend", "test: contrast", "groups_accuracy: got over arm, 5 levels and 0 terms"),
        ("quantity: test_accuracy", "quantity: speed", "quantity: got 'speed', allowed: test_"),
        (
            "quantity: test_accuracy",
            "quantity: parameters",
            "groups_accuracy.quantity: got parameters for a trend, allowed: test_accuracy or ",
        ),
        (
            "quantity: parameters",
            "quantity: test_accuracy",
            "ln_parameters.quantity: got test_accuracy for a ratio, allowed: parameters",
        ),
        (
            "smallest_effect: 1.1",
            "smallest_effect: 1.0",
            "groups_convergence.smallest_effect: got 1, allowed: above 1",
        ),
        (
            "smallest_error_ratio: 1.2",
            "smallest_error_ratio: 1",
            "smallest_error_ratio: got 1, allowed: a number above 1",
        ),
        (BN_TERM, "", "ln_parameters.contrast: got 1 variants, allowed: 2"),
        (
            "{weight: 1, arm: instance}",
            "{arm: instance}",
            "contrast: got {'arm': 'instance'}, allowed: terms such as",
        ),
        (
            "{weight: 1, arm: instance}",
            "{weight: 1}",
            "contrast: got {'weight': 1}, allowed: terms",
        ),
        (
            "arm: instance}",
            "arm: [instance]}",
            "instance_accuracy.contrast: got ['instance'], allowed: terms such as ",
        ),
        (
            TWO_TERMS,
            "    than: 0.9\n" + TWO_TERMS,
            "instance_layer.than: got 0.9 for 2 terms, allowed: for a contrast of one",
        ),
        (
            "    over: arm\n",
            "    over: arm\n    than: 0.9\n",
            "groups_accuracy.than: got 0.9 for 0 terms, allowed: for a contrast of one",
        ),
        ("than: 0.9848", "than: much", "published_bn.than: got 'much', allowed: a value that the "),
        (
            "than: 0.9848\n",
            "twin: {study: l1, smallest_effect: 0}\n",
            "published_bn.twin: got 0, allowed: a study, and perhaps a smallest_effect, ",
        ),
        (
            "    where: on 10,000 images in batches of 2\n",
            "    wo: on 10,000 images in batches of 2\n",
            "tuned_ln_below_gn.places: unknown key",
        ),
        (
            "    places: *places\n",
            "    places: *places\n    twin: {study: l1}\n",
            "tuned_ln_below_bn: got a twin with places, allowed: a contrast alone",
        ),
        (
            "smallest_effect: 2\n",
            "smallest_effect: 2\n    twin: {study: l1, smallest_effect: 1.0}\n",
            "ln_parameters.twin.smallest_effect: got 1, allowed: above 1",
        ),
    ],
)
def test_a_bad_claim_gets_one_line_each(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(COMMITTED.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        declared.load(path)
    lines = str(refused.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert any(message in line for line in lines)


def test_a_claim_with_a_twin_is_followed_by_it() -> None:
    told = declared.load(COMMITTED)
    names = ("groups_accuracy", "groups_convergence", "instance_layer")
    one, other, none = (told.claims[name].model_copy(update={"twin": None}) for name in names)
    with_twins = (
        one.model_copy(update={"twin": declared.Twin(study="others", smallest_effect=0.005)}),
        other.model_copy(update={"twin": declared.Twin(study="others")}),
        none,
    )
    file = told.model_copy(update={"claims": dict(zip(names, with_twins, strict=True))})
    found = file.every()
    assert list(found.items()) == [
        ("groups_accuracy", with_twins[0]),
        (
            "groups_accuracy_twin",
            one.model_copy(update={"study": "others", "smallest_effect": 0.005}),
        ),
        ("groups_convergence", with_twins[1]),
        ("groups_convergence_twin", other.model_copy(update={"study": "others"})),
        ("instance_layer", none),
    ]


def test_a_claim_of_several_places_is_judged_of_each_by_itself() -> None:
    told = declared.load(COMMITTED)
    few = declared.Place(where="on few images", study="few")
    changes = {"arms": {"batch_size": 2}, "smallest_effect": 0.01}
    places = {"few": few, "small": few.model_copy(update=changes)}
    claim = told.claims["ln_below_gn"].model_copy(update={"places": places, "twin": None})
    found = told.model_copy(update={"claims": {"below": claim}}).every()
    assert list(found) == ["below_few", "below_small"]
    whole, small = found.values()
    assert whole.study == small.study == "few"
    assert whole.claim == "Layer norm's accuracy is below group norm's, on few images"
    assert whole.subject == "Layer norm instead of group norm, on few images,"
    assert (whole.smallest_effect, small.smallest_effect) == (claim.smallest_effect, 0.01)
    assert [term.arm for term in whole.terms] == [{"arm": "ln_elementwise"}, {"arm": "gn"}]
    assert [term.arm["batch_size"] for term in small.terms] == [2, 2]
    assert [term.weight for term in small.terms] == [1, -1]
    assert whole.places == small.places == {}


def test_the_committed_findings_are_the_verdicts_on_the_committed_studies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judge, "TABLES", ROOT / "studies/reports")
    own = studies.load(ROOT / "studies/params.yaml")
    parameters = pd.read_csv(ROOT / "reports/parameters.csv")
    told = declared.load(COMMITTED)
    tables = judge.tables(told.every(), own)
    again = claims.judge(told.every(), told.smallest_error_ratio, tables, parameters)
    committed = pd.read_csv(ROOT / "studies/reports/findings.csv")
    expected = claims.table(again)
    assert [*committed] == [*expected]
    # Only Git's history tells it.
    assert {*committed.pop("registration").dropna()} <= STANDINGS
    for column in committed:
        ours, theirs = committed[column], expected[column]
        assert ours.isna().tolist() == theirs.isna().tolist(), column
        known = ours.notna()
        if pd.api.types.is_float_dtype(ours):
            assert ours[known].tolist() == pytest.approx(
                theirs[known].astype(float).tolist(), rel=1e-5, abs=1e-9
            ), column
        else:
            assert ours[known].astype(str).tolist() == theirs[known].astype(str).tolist(), column
    assert json.loads((ROOT / "studies/reports/findings.json").read_text()) == json.loads(
        json.dumps(claims.metrics(again)), parse_float=lambda text: round(float(text), 5)
    )
