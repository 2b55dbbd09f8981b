"""Claims are judged by rules seen to work: on made-up studies, and on the committed ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from normlab.errors import InputError
from normlab.evidence import claims, declared, verdicts
from normlab.evidence.declared import Claim
from normlab.evidence.verdicts import Estimate
from normlab.studies import STUDIES

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "studies/claims.yaml"
BN_TERM = "      - {weight: -1, variant: bn_l1}\n"

PARAMETERS = pd.DataFrame(
    [
        *(("bn", "conv1", 108), ("bn", "norm1", 24), ("bn", "norm2", 32)),
        *(("ln", "conv1", 108), ("ln", "norm1", 240), ("ln", "norm2", 96)),
    ],
    columns=["variant", "layer", "parameters"],
)
RATIO = [(1, "gn"), (-1, "ln")]
RATIO_OF_PARAMETERS: dict[str, Any] = {
    "test": "ratio",
    "study": "main",
    "quantity": "parameters",
    "smallest_effect": 2.0,
    "contrast": [{"weight": -1, "variant": "bn"}, {"weight": 1, "variant": "ln"}],
}


def claim(**changes: object) -> Claim:
    fields: dict[str, Any] = {
        "claim": "More is better",
        "source": "Somebody",
        "study": "made",
        "quantity": "test_accuracy",
        "subject": "More",
        "test": "contrast",
        "direction": "higher",
        "smallest_effect": 0.001,
    }
    return Claim(**(fields | changes))


def terms(**weights: float) -> list[dict[str, str | float]]:
    """A contrast of arms that are called by their level of the made-up factor."""
    return [{"weight": weight, "arm": level} for level, weight in weights.items()]


def study(arms: dict[str, float], seeds: int = 10, noise: float = 3e-4) -> pd.DataFrame:
    """Accuracies of arms around their means, with a shift that a seed's trials share."""
    generator = np.random.default_rng(0)
    shift = generator.normal(scale=1e-3, size=seeds)
    rows = [
        ("made", "gn", name, seed, mean + shift[seed] + generator.normal(scale=noise))
        for name, mean in arms.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["study", "variant", "arm", "seed", "test_accuracy"])


def judged(one: Claim, table: pd.DataFrame, others: int = 0) -> dict[str, Any]:
    """Judge a claim in a family with as many others, which find nothing."""
    tables = {"made": table, "null": study({"a": 0.99, "b": 0.99})}
    nulls = {f"null{i}": claim(study="null", contrast=terms(a=1, b=-1)) for i in range(others)}
    found = claims.judge({"one": one} | nulls, tables, PARAMETERS)
    assert found["tests"] == others + (found["findings"]["one"]["p"] is not None)
    finding: dict[str, Any] = found["findings"]["one"]
    return finding


@dataclass
class Case:
    less: float
    """The mean of setting "less"; that of "more" is 0.99."""
    seeds: int
    others: int
    verdict: str
    says: str


@pytest.mark.parametrize(
    "case",
    [
        Case(0.987, 10, 12, "supported", "More raises test accuracy by 0."),
        Case(0.993, 10, 12, "contradicted", "More lowers test accuracy by 0."),
        # Six seeds that all agree are too few for thirteen tests, ten would not be.
        Case(0.987, 6, 12, "not shown", "among so many comparisons that may be chance"),
        Case(0.987, 6, 0, "supported", "More raises test accuracy by 0."),
        Case(0.9895, 10, 12, "not shown", "too little to matter"),
        Case(0.99, 3, 0, "not shown", "too little to matter"),
    ],
)
def test_a_contrast(case: Case) -> None:
    one = claim(contrast=terms(more=1, less=-1))
    finding = judged(one, study({"less": case.less, "more": 0.99}, case.seeds), case.others)
    assert (finding["verdict"], finding["trials"]) == (case.verdict, 2 * case.seeds)
    assert case.says in finding["sentence"]
    assert finding["low"] <= finding["effect"] <= finding["high"]
    assert finding["p"] <= finding["p_holm"]
    assert finding["smallest_p"] == 2 / 2**case.seeds


def test_a_contrast_too_noisy_to_tell() -> None:
    one = claim(contrast=terms(more=1, less=-1))
    finding = judged(one, study({"less": 0.99, "more": 0.99}, noise=0.01))
    assert finding["verdict"] == "not shown"
    assert "More may raise or lower test accuracy, 10 seeds do not tell" in finding["sentence"]


def test_a_difference_of_differences() -> None:
    one = claim(contrast=terms(a=1, b=-1, c=-1, d=1))
    table = study({"a": 0.98, "b": 0.97, "c": 0.99, "d": 0.99})
    finding = judged(one, table)
    assert finding["effect"] == pytest.approx(0.01, abs=5e-4)
    assert (finding["verdict"], finding["trials"]) == ("supported", 40)


@pytest.mark.parametrize(
    ("means", "direction", "verdict"),
    [
        ([0.990, 0.992, 0.994, 0.996], "higher", "supported"),
        ([0.990, 0.992, 0.994, 0.996], "lower", "contradicted"),
        ([0.996, 0.994, 0.992, 0.990], "higher", "contradicted"),
        ([0.990, 0.990, 0.990, 0.990], "higher", "not shown"),
        # It climbs step by step, then collapses: no trend up, and none down either.
        ([0.990, 0.992, 0.994, 0.100], "higher", "not shown"),
        ([0.990, 0.992, 0.994, 0.100], "lower", "not shown"),
    ],
)
def test_a_trend(means: list[float], direction: str, verdict: str) -> None:
    table = study(dict(zip("abcd", means, strict=True)))
    finding = judged(claim(test="trend", over="arm", direction=direction), table, others=12)
    assert (finding["verdict"], finding["trials"]) == (verdict, 40)
    assert finding["smallest_p"] is None


def test_findings_are_a_table_and_a_few_metrics() -> None:
    one = claim(contrast=terms(more=1, less=-1))
    tables = {"made": study({"less": 0.987, "more": 0.99})}
    found = claims.judge({"one": one, "two": claim(**RATIO_OF_PARAMETERS)}, tables, PARAMETERS)
    table = claims.table(found)
    assert table[["name", "verdict", "tests"]].to_numpy().tolist() == [
        ["one", "supported", 1],
        ["two", "supported", 1],
    ]
    assert table["trials"].isna().tolist() == [False, True]
    effects = {"one": found["findings"]["one"]["effect"], "two": 3.0}
    counts = {"supported": 2, "contradicted": 0, "not_shown": 0}
    assert claims.metrics(found) == counts | {"effect": effects}


def test_a_trend_over_some_levels() -> None:
    table = study({"a": 0.990, "b": 0.992, "c": 0.994, "d": 0.100})
    finding = judged(claim(test="trend", over="arm", levels=["a", "b", "c"]), table)
    assert (finding["verdict"], finding["trials"]) == ("supported", 30)
    assert finding["effect"] == pytest.approx(0.004, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "noise", "verdict"),
    [
        (0.0, 3e-4, "supported"),
        (0.01, 3e-4, "supported"),
        (-0.01, 3e-4, "contradicted"),
        (0.0, 0.01, "not shown"),
    ],
)
def test_non_inferiority(change: float, noise: float, verdict: str) -> None:
    one = claim(test="non-inferiority", contrast=terms(small=1, large=-1))
    finding = judged(one, study({"large": 0.98, "small": 0.98 + change}, noise=noise))
    assert (finding["verdict"], finding["p"]) == (verdict, None)


def test_a_ratio_is_that_of_the_layer_that_grows_least() -> None:
    one = claim(**RATIO_OF_PARAMETERS)
    finding = judged(one, study({"a": 0.99}))
    assert (finding["verdict"], finding["effect"], finding["unit"]) == ("supported", 3, "times")
    assert (finding["low"], finding["trials"]) == (None, None)
    more = one.model_copy(update={"smallest_effect": 4.0})
    assert judged(more, study({"a": 0.99}))["verdict"] == "contradicted"


@pytest.mark.parametrize(
    ("effect", "low", "high", "p_holm", "verdict"),
    [
        (0.002, 0.001, 0.003, 0.01, "supported"),
        (0.002, 0.001, 0.003, 0.06, "not shown"),
        (0.002, -0.001, 0.005, 0.01, "not shown"),
        (0.0009, 0.0001, 0.0017, 0.01, "not shown"),
        (-0.002, -0.003, -0.001, 0.01, "contradicted"),
        (-0.002, -0.003, -0.001, 0.06, "not shown"),
        (-0.0009, -0.0017, -0.0001, 0.01, "not shown"),
    ],
)
def test_a_verdict_needs_interval_size_and_p(
    effect: float, low: float, high: float, p_holm: float, verdict: str
) -> None:
    one = claim(contrast=terms(a=1))
    assert verdicts.decide(one, Estimate(effect, low, high, 0.001, 10, 10), p_holm) == verdict
    opposite = claim(contrast=terms(a=1), direction="lower")
    mirrored = Estimate(-effect, -high, -low, 0.001, 10, 10)
    assert verdicts.decide(opposite, mirrored, p_holm) == verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "none"}, "one.study: got none, allowed: made, null, main"),
        (
            {"contrast": terms(x=1)},
            "one: got arm x, which is 0 arms, allowed: variant gn, arm a; variant gn, arm b",
        ),
        (
            {"contrast": [{"weight": 1, "variant": "gn"}]},
            "one: got variant gn, which is 2 arms, allowed: variant gn, arm a; variant gn, arm b",
        ),
        ({"contrast": [{"weight": 1, "size": 2}]}, "one: got size, allowed: variant, arm"),
        (
            {"contrast": [], "test": "trend", "over": "size"},
            "one.over: got size, allowed: variant, arm",
        ),
        ({"quantity": "optimism"}, "one.quantity: got optimism, allowed: test_accuracy"),
        (
            {"test": "ratio", "contrast": [{"weight": w, "variant": v} for w, v in RATIO]},
            "one.contrast: got variant gn, allowed: variant bn, ln",
        ),
    ],
)
def test_what_a_study_does_not_have_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        judged(claim(**({"contrast": terms(a=1)} | changes)), study({"a": 0.99, "b": 0.99}))
    assert str(refused.value) == message


def test_arms_need_the_same_seeds_and_two_of_them() -> None:
    one, table = claim(contrast=terms(a=1, b=-1)), study({"a": 0.99, "b": 0.99})
    with pytest.raises(InputError, match="one: got arms with different seeds"):
        judged(one, table.iloc[:-1])
    with pytest.raises(InputError, match=r"made\.seeds: got 1 seed, allowed: at least 2"):
        judged(one, table[table["seed"] == 0])


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
            "groups_accuracy: got over gn_groups, 5 levels and 0 terms",
        ),
        (BN_TERM, "", "ln_parameters.contrast: got 1 variants, allowed: 2"),
        (
            "{weight: 1, gn_groups: 16}",
            "{gn_groups: 16}",
            "contrast: got {'gn_groups': 16}, allowed: terms such as",
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
    again = claims.judge(declared.load(COMMITTED).claims, tables, parameters)
    committed = pd.read_csv(ROOT / "studies/reports/findings.csv")
    expected = claims.table(again).astype(dict.fromkeys(("seeds", "trials"), float))
    pd.testing.assert_frame_equal(committed, expected, check_dtype=False, rtol=1e-5, atol=1e-9)
    assert json.loads((ROOT / "studies/reports/findings.json").read_text()) == claims.metrics(again)
