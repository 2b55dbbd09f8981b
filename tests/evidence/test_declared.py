"""Claims are read, and what is wrong in them is named; the committed findings are theirs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from normlab.errors import InputError
from normlab.evidence import claims, declared
from normlab.studies import STUDIES

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "studies/claims.yaml"
BN_TERM = "      - {weight: -1, variant: bn_l1}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test: trend", "test: guess", "groups_accuracy.test: got 'guess', allowed: trend, "),
        ("direction: higher", "direction: up", "direction: got 'up', allowed: higher or lower"),
        ("smallest_effect: 0.001", "smallest_effect: 0", "smallest_effect: got 0, allowed: a "),
        ("source:", "sauce:", "groups_accuracy.source: got nothing, allowed: who claims it"),
        ("subject:", "topic: x\n    subject:", "topic: unknown key, allowed: claim, source, "),
        ("reported: {", "told: {", "reported: got nothing, allowed: accuracies by variant"),
        (
            "test: trend",
            "test: contrast",
            "groups_accuracy: got over gn_groups, 4 levels and 0 terms",
        ),
        (
            "quantity: test_accuracy",
            "quantity: optimism",
            "quantity: got 'optimism', allowed: test_",
        ),
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
            "{weight: 1, gn_groups: 16}",
            "{gn_groups: 16}",
            "contrast: got {'gn_groups': 16}, allowed: terms such as",
        ),
        (
            "{weight: 1, gn_groups: 16}",
            "{weight: 1}",
            "contrast: got {'weight': 1}, allowed: terms",
        ),
        (
            "gn_groups: 16}",
            "gn_groups: [16]}",
            "instance_accuracy.contrast: got [16], allowed: terms such as ",
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


def test_the_committed_findings_are_the_verdicts_on_the_committed_studies() -> None:
    tables = {name: pd.read_csv(ROOT / f"studies/reports/{name}.csv") for name in STUDIES}
    parameters = pd.read_csv(ROOT / "reports/parameters.csv")
    told = declared.load(COMMITTED)
    again = claims.judge(told.claims, told.smallest_error_ratio, tables, parameters)
    committed = pd.read_csv(ROOT / "studies/reports/findings.csv")
    expected = claims.table(again)
    assert [*committed] == [*expected]
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
