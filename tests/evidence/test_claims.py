"""Claims are judged by rules seen to work, on made-up studies."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from normlab.errors import InputError
from normlab.evidence import claims, inference
from normlab.evidence.declared import Claim
from normlab.evidence.readings import Question, Trials
from normlab.evidence.verdicts import TIMES

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
    """Accuracies of arms about their means, and as many logarithms of losses about theirs."""
    generator = np.random.default_rng(0)
    rows = [
        ("made", "gn", name, seed, mean + off, 10 * (mean + off))
        for name, mean in arms.items()
        for seed, off in enumerate(generator.normal(scale=noise, size=seeds))
    ]
    columns = ["study", "variant", "arm", "seed", "test_accuracy", "log_val_loss"]
    return pd.DataFrame(rows, columns=columns)


def judged(one: Claim, table: pd.DataFrame, others: int = 0) -> dict[str, Any]:
    """Judge a claim in a family with as many others, of a kind that is quick to judge."""
    tables = {"made": table, "null": study({"a": 0.99, "b": 0.99})}
    quick = claim(study="null", test="non-inferiority", contrast=terms(a=1, b=-1))
    nulls = {f"null{place}": quick for place in range(others)}
    finding, *_ = claims.judge({"one": one} | nulls, 1.2, tables, PARAMETERS)
    assert finding["tests"] == others + claims.statements(one)
    assert finding["level"] == 1 - 0.05 / max(1, finding["tests"])
    return finding


@dataclass
class Case:
    less: float
    """The mean of arm "less"; that of "more" is 0.99."""
    others: int
    verdict: str
    says: str
    noise: float = 3e-4


@pytest.mark.parametrize(
    "case",
    [
        Case(0.987, 12, "supported", "More raises test accuracy by 0.2"),
        Case(0.993, 12, "contradicted", "More lowers test accuracy by 0.3"),
        Case(
            0.989, 12, "supported", "that it is as much as the 0.1 points that matter is not shown."
        ),
        Case(
            0.9899, 12, "no effect that matters", "by less than 0.1 points, too little to matter ("
        ),
        Case(0.9899, 12, "open", "More may raise or lower test accuracy (", 1e-2),
        # An interval of one alone is shorter.
        Case(0.98755, 0, "supported", "More raises", 1.5e-3),
        Case(0.98755, 19, "open", "10 seeds an arm do not tell; some ", 1.5e-3),
    ],
)
def test_a_contrast(case: Case) -> None:
    one = claim(contrast=terms(more=1, less=-1))
    table = study({"less": case.less, "more": 0.99}, noise=case.noise)
    finding = judged(one, table, case.others)
    assert (finding["verdict"], finding["seeds"], finding["trials"]) == (case.verdict, 10, 20)
    assert case.says in finding["sentence"]
    assert finding["low"] <= finding["effect"] <= finding["high"]
    assert finding["p_adjusted"] == min(1, finding["tests"] * finding["p"])
    assert (finding["seeds_needed"] is not None) == (case.verdict == "open")
    assert (finding["matters_from"], finding["harmless_to"]) == (None, None)


def test_arms_have_seeds_of_their_own_and_as_many_as_they_like() -> None:
    table = study({"less": 0.987, "more": 0.99})
    fewer = table.drop(index=[0, 3, 4])
    finding = judged(claim(contrast=terms(more=1, less=-1)), fewer)
    assert (finding["verdict"], finding["seeds"], finding["trials"]) == ("supported", 7, 17)
    others = table.assign(seed=table["seed"] + 100 * (table["arm"] == "more"))
    one = claim(contrast=terms(more=1, less=-1))
    assert judged(one, others) == judged(one, table)
    two = table[table["seed"] < 2]
    assert judged(one, two)["changed_by_one"] is None


def test_a_difference_of_differences() -> None:
    table = study({"a": 0.98, "b": 0.97, "c": 0.99, "d": 0.99})
    finding = judged(claim(contrast=terms(a=1, b=-1, c=-1, d=1)), table)
    assert finding["effect"] == pytest.approx(0.01, abs=5e-4)
    assert (finding["verdict"], finding["trials"]) == ("supported", 40)
    # Of the ratios of errors the ratio: 2 / 3 to 1.
    assert finding["error_ratio"] == pytest.approx(2 / 3, rel=0.05)


def test_an_arm_alone_is_compared_with_nothing() -> None:
    """As a quantity that is a difference in itself."""
    table = study({"a": 0.01, "b": 0.99})
    finding = judged(claim(contrast=terms(a=1)), table)
    assert (finding["verdict"], finding["seeds"], finding["trials"]) == ("supported", 10, 10)
    values = table[table["arm"] == "a"]["test_accuracy"]
    assert finding["effect"] == pytest.approx(values.mean())
    alone = inference.contrast([values.to_numpy()], [1])
    assert (finding["low"], finding["high"]) == inference.interval(alone, 0.95)
    assert finding["p"] == inference.welch_test(alone)
    none = judged(claim(contrast=terms(a=1)), table.assign(test_accuracy=values - values.mean()))
    assert none["verdict"] == "no effect that matters"


@pytest.mark.parametrize(
    ("than", "verdict", "says"),
    [
        (0.985, "supported", "More costs no 0.1 points of accuracy on images"),
        (0.9905, "supported", "More costs no 0.1 points"),
        (0.991, "open", "which leaves open whether that matters"),
        (0.993, "contradicted", "More lowers"),
    ],
)
def test_an_arm_may_be_compared_with_a_value(than: float, verdict: str, says: str) -> None:
    table = study({"a": 0.99, "b": 0.97}).rename(columns={"test_accuracy": "seen_accuracy"})
    fields: dict[str, Any] = {"quantity": "seen_accuracy", "test": "non-inferiority"}
    finding = judged(claim(**fields, contrast=terms(a=1), than=than), table)
    assert (finding["verdict"], finding["trials"]) == (verdict, 10)
    assert finding["effect"] == pytest.approx(0.99 - than, abs=2e-4)
    assert says in finding["sentence"]


@pytest.mark.parametrize(
    "sizes", [{"a": 2, "b": 0.01, "c": 6}, {"a": "2", "b": "0.01", "c": "6 4 3"}]
)
def test_an_arm_is_named_by_numbers_though_a_text_is_among_them(sizes: dict[str, Any]) -> None:
    """A column that holds a text anywhere is read as texts."""
    named = study({"a": 0.990, "b": 0.992, "c": 0.994})
    table = named.drop(columns="arm")
    table.insert(2, "size", named["arm"].map(sizes))
    by_size = [{"weight": 1, "size": 0.01}, {"weight": -1, "size": 2}]
    expected = judged(claim(contrast=terms(b=1, a=-1)), named)
    assert judged(claim(contrast=by_size), table) == expected
    levels = [2, 0.01, sizes["c"]]
    trend = judged(claim(test="trend", over="size", levels=levels), table)
    assert (trend["effect"], trend["matters_from"]) == (
        judged(claim(test="trend", over="arm"), named)["effect"],
        0.01,
    )


@pytest.mark.parametrize(
    ("direction", "verdict"), [("lower", "supported"), ("higher", "contradicted")]
)
def test_of_a_loss_the_effect_is_a_factor(direction: str, verdict: str) -> None:
    table = study({"slow": 0.99, "fast": 0.97})
    fields = {"quantity": "log_val_loss", "smallest_effect": 1.1, "direction": direction}
    finding = judged(claim(**fields, contrast=terms(fast=1, slow=-1)), table)
    assert (finding["verdict"], finding["unit"]) == (verdict, "times")
    assert finding["effect"] == pytest.approx(math.exp(-0.2), rel=0.01)
    assert 0 < finding["low"] < finding["effect"] < finding["high"] < 1 / 1.1
    # What matters may be as small as nothing, a factor of 1, or as large as the interval's far end.
    assert (finding["holds_from"], finding["holds_to"]) == (1, pytest.approx(1 / finding["low"]))
    assert "error_ratio" not in finding
    said = f"More multiplies validation loss over all epochs by {finding['effect']:.3g} ({TIMES} "
    assert finding["sentence"].startswith(said)
    none = judged(claim(**fields, contrast=terms(fast=1, slow=-1)), study({"slow": 1, "fast": 1}))
    assert "changes validation loss over all epochs by less than 10 %" in none["sentence"]


def test_accuracies_are_judged_once_more_as_ratios_of_errors() -> None:
    table = study({"less": 0.988, "more": 0.992}, noise=1e-4)
    one = claim(contrast=terms(more=1, less=-1), smallest_effect=0.01)
    finding = judged(one, table)
    assert (finding["verdict"], finding["error_ratio_verdict"]) == (
        "no effect that matters",
        "supported",
    )
    logs = [np.log(1 - table[table["arm"] == arm]["test_accuracy"]) for arm in ("more", "less")]
    trials = Trials([log.to_numpy() for log in logs], [1, -1])
    ends = inference.interval(trials.contrast, Question("contrast", -1, 1, 1).level)
    ratios = [finding[f"error_ratio_{end}"] for end in ("low", "high")]
    assert ratios == pytest.approx(np.exp(ends))
    loss = claim(contrast=terms(less=1, more=-1), test="non-inferiority", smallest_effect=0.01)
    finding = judged(loss, table)
    assert (finding["verdict"], finding["error_ratio_verdict"]) == ("supported", "contradicted")
    perfect = table.assign(test_accuracy=table["test_accuracy"].where(table.index > 0, 1.0))
    assert "error_ratio" not in judged(one, perfect)


@pytest.mark.parametrize(
    ("means", "direction", "verdict"),
    [
        ([0.990, 0.992, 0.994, 0.996], "higher", "supported"),
        ([0.990, 0.992, 0.994, 0.996], "lower", "contradicted"),
        ([0.996, 0.994, 0.992, 0.990], "higher", "contradicted"),
        ([0.990, 0.990, 0.990, 0.990], "higher", "no effect that matters"),
        # It climbs step by step, then collapses: no trend up, and none down either.
        ([0.990, 0.992, 0.994, 0.100], "higher", "open"),
        ([0.990, 0.992, 0.994, 0.100], "lower", "open"),
    ],
)
def test_a_trend(means: list[float], direction: str, verdict: str) -> None:
    table = study(dict(zip("abcd", means, strict=True)), seeds=6)
    finding = judged(claim(test="trend", over="arm", direction=direction), table, others=2)
    assert (finding["verdict"], finding["trials"], finding["near"]) == (verdict, 24, False)
    said = "at the ends, but not step by step" in finding["sentence"]
    assert said == (verdict == "open")


def test_a_trend_tells_from_where_on_and_up_to_where() -> None:
    table = study({"a": 0.990, "b": 0.9901, "c": 0.994, "d": 0.996}, seeds=6, noise=1e-4)
    finding = judged(claim(test="trend", over="arm"), table)
    assert (finding["matters_from"], finding["harmless_to"]) == ("c", "b")
    said = "It is shown to matter from c on and shown not to matter up to b."
    assert finding["sentence"].endswith(said)
    labels = table["arm"].map({"a": "none", "b": "a few", "c": "some", "d": "many"})
    finding = judged(claim(test="trend", over="arm"), table.assign(label=labels))
    assert (finding["matters_from"], finding["harmless_to"]) == ("some", "a few")


def test_a_trend_over_some_levels() -> None:
    table = study({"a": 0.990, "b": 0.992, "c": 0.994, "d": 0.100}, seeds=6)
    finding = judged(claim(test="trend", over="arm", levels=["a", "b", "c"]), table)
    assert (finding["verdict"], finding["trials"]) == ("supported", 18)
    assert finding["effect"] == pytest.approx(0.004, abs=5e-4)


@pytest.mark.parametrize(
    ("change", "noise", "verdict", "says"),
    [
        (0.0, 3e-4, "supported", "More costs no 0.1 points of test accuracy (change: "),
        (0.01, 3e-4, "supported", "More costs no 0.1 points"),
        (-0.01, 3e-4, "contradicted", "More lowers test accuracy by 1.0"),
        (0.0, 0.01, "open", "More may raise or lower test accuracy ("),
        (-0.001, 3e-4, "open", "which leaves open whether that matters. 10 seeds an arm do not"),
    ],
)
def test_non_inferiority(change: float, noise: float, verdict: str, says: str) -> None:
    one = claim(test="non-inferiority", contrast=terms(small=1, large=-1))
    finding = judged(one, study({"large": 0.98, "small": 0.98 + change}, noise=noise))
    assert finding["verdict"] == verdict
    assert says in finding["sentence"]


def test_what_no_number_of_seeds_would_tell_is_said() -> None:
    """The order rises, the ends fall."""
    climb = {"a": 0.990, "b": 0.992, "c": 0.994, "d": 0.996, "e": 0.998, "f": 0.100}
    table = study(climb, seeds=6)
    finding = judged(claim(test="trend", over="arm"), table)
    assert finding["seeds_needed"] is None
    assert "6 seeds an arm do not tell, and more are not expected to." in finding["sentence"]


def test_findings_are_a_table_and_a_few_metrics() -> None:
    one = claim(contrast=terms(more=1, less=-1))
    tables = {"made": study({"less": 0.987, "more": 0.99})}
    two = claim(**RATIO_OF_PARAMETERS)
    found = claims.judge({"one": one, "two": two}, 1.2, tables, PARAMETERS)
    table = claims.table(found)
    assert table[["name", "verdict", "tests"]].to_numpy().tolist() == [
        ["one", "supported", 1],
        ["two", "supported", 1],
    ]
    assert table["trials"].isna().tolist() == [False, True]
    assert set(found[0]) <= set(table.columns)
    counts = {"supported": 2, "contradicted": 0, "no_effect_that_matters": 0, "open": 0}
    effects = {"one": found[0]["effect"], "two": 3.0}
    assert claims.metrics(found) == counts | {"effect": effects}


def test_a_ratio_is_that_of_the_layer_that_grows_least() -> None:
    one = claim(**RATIO_OF_PARAMETERS)
    finding = judged(one, study({"a": 0.99}))
    assert (finding["verdict"], finding["effect"], finding["unit"]) == ("supported", 3, "times")
    assert finding["sentence"].endswith("by 3 or more: counted, not estimated.")
    assert not {"low", "p", "trials"} & {*finding}
    more = one.model_copy(update={"smallest_effect": 4.0})
    assert judged(more, study({"a": 0.99}))["verdict"] == "contradicted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "main"}, "one.study: got main, allowed: made, null"),
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
        (
            {"contrast": [], "test": "trend", "over": "arm", "levels": ["a"]},
            "one.levels: got 1, allowed: at least 2",
        ),
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


def test_an_arm_needs_two_seeds() -> None:
    one, table = claim(contrast=terms(a=1, b=-1)), study({"a": 0.99, "b": 0.99})
    with pytest.raises(InputError, match=r"made\.seeds: got 1 seed, allowed: at least 2"):
        judged(one, table[table["seed"] == 0])
