"""Claims put to the test: each judged by the tables of the studies, all as one family."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from normlab.errors import InputError
from normlab.evidence import readings, verdicts
from normlab.evidence.declared import FACTORS, WORDS, Claim, Value
from normlab.evidence.inference import Floats
from normlab.evidence.readings import ALPHA, Question, Trials, Verdict


def judge(
    claims: Mapping[str, Claim],
    smallest_error_ratio: float,
    tables: Mapping[str, pd.DataFrame],
    parameters: pd.DataFrame,
) -> list[dict[str, Any]]:
    """Judge all claims as one family.

    Parameters
    ----------
    claims
        By name, in the order in which to report them.
    smallest_error_ratio
        What would matter on a scale of error ratios: a factor.
    tables
        The scores of each study: columns study, variant, arm, the study's factors, seed and
        the quantities, fractions or natural logarithms; and label, an arm's name for people.
    parameters
        Columns variant, layer, parameters (a count).

    Returns
    -------
    A finding for each claim, as `docs/outputs.md` tells. Effects, intervals and smallest effects
    are fractions of accuracy where `unit` is "points", and factors where it is "times".

    Raises
    ------
    InputError
        If a claim names what its study does not have, or an arm has fewer than two seeds.
    """
    family = sum(map(statements, claims.values()))
    findings = []
    for name, claim in claims.items():
        about = {
            "name": name,
            "claim": claim.claim,
            "source": claim.source,
            "study": claim.study,
            "quantity": WORDS[claim.quantity],
            "compared": claim.subject,
            "unit": "times" if claim.quantity in FACTORS else "points",
            "test": claim.test,
        }
        if claim.test == "ratio":
            found = _counted(claim, _smallest_ratio(name, claim, parameters))
        else:
            found = _tested(name, claim, tables, family, smallest_error_ratio)
        finding = {**about, **found, "tests": family, "level": 1 - ALPHA / max(1, family)}
        findings.append({**finding, "sentence": verdicts.sentence(claim, finding)})
    return findings


def statements(claim: Claim) -> int:
    """Count what is stated of a claim: a trend also tells from where on, and up to where."""
    if claim.test == "ratio":
        return 0
    return 3 if claim.test == "trend" else 1


def table(findings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay out what `judge` found, a row for each claim; what is not known of one is missing."""
    rows = pd.DataFrame(findings).reindex(columns=verdicts.OF_FINDINGS.split())
    whole = dict.fromkeys(("seeds", "trials", "seeds_needed"), "Int64")
    return rows.astype(whole)


def metrics(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pick what somebody compares: how many verdicts of each kind, and every effect."""
    counts = Counter(finding["verdict"] for finding in findings)
    return {verdict.replace(" ", "_"): counts[verdict] for verdict in get_args(Verdict)} | {
        "effect": {finding["name"]: finding["effect"] for finding in findings}
    }


def _counted(claim: Claim, ratio: float) -> dict[str, Any]:
    """Judge a ratio of counts, which is what it is."""
    above = ratio >= claim.smallest_effect
    supported = above == (claim.direction == "higher")
    return {
        "verdict": "supported" if supported else "contradicted",
        "effect": ratio,
        "smallest_effect": claim.smallest_effect,
    }


def _tested(
    name: str,
    claim: Claim,
    tables: Mapping[str, pd.DataFrame],
    family: int,
    smallest_error_ratio: float,
) -> dict[str, Any]:
    """Judge a claim by the trials of its study."""
    table = _table(name, claim, tables)
    trials, levels = _trials(name, claim, table)
    factor = claim.quantity in FACTORS
    least = math.log(claim.smallest_effect) if factor else claim.smallest_effect
    sign = 1 if claim.direction == "higher" else -1
    assert claim.test != "ratio"
    question = Question(claim.test, sign, least, family)
    found = readings.read(question, trials)
    scale = math.exp if factor else float
    places = readings.where(question, trials.arms) if levels else (None, None)
    matters_from, harmless_to = (None if place is None else levels[place] for place in places)
    return {
        "verdict": found.verdict,
        "matters": found.matters,
        "effect": scale(found.effect),
        "low": scale(found.low),
        "high": scale(found.high),
        "smallest_effect": claim.smallest_effect,
        "holds_from": scale(found.holds_from),
        "holds_to": None if math.isinf(found.holds_to) else scale(found.holds_to),
        "p": found.p,
        "p_adjusted": min(1.0, family * found.p),
        "near": found.near,
        "changed_by_one": readings.changed_by_one(question, trials),
        "seeds_needed": readings.seeds_needed(question, trials)
        if found.verdict == "open"
        else None,
        "matters_from": matters_from,
        "harmless_to": harmless_to,
        **_error_ratio(claim, question, trials, math.log(smallest_error_ratio)),
        "seeds": min(arm.size for arm in trials.arms),
        "trials": sum(arm.size for arm in trials.arms),
    }


def _error_ratio(claim: Claim, question: Question, trials: Trials, least: float) -> dict[str, Any]:
    """Judge accuracies once more, as ratios of errors; not of one arm, or where there are none."""
    errors = [1 - arm for arm in trials.arms]
    alone = len(errors) == 1
    if claim.quantity != "test_accuracy" or alone or any(error.min() <= 0 for error in errors):
        return {}
    logs = [np.array([math.log(error) for error in arm.tolist()]) for arm in errors]
    question = question._replace(sign=-question.sign, least=least)
    found = readings.read(question, trials._replace(arms=logs))
    return {
        "error_ratio": math.exp(found.effect),
        "error_ratio_low": math.exp(found.low),
        "error_ratio_high": math.exp(found.high),
        "error_ratio_verdict": found.verdict,
    }


def _table(name: str, claim: Claim, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if claim.study not in tables:
        raise InputError(f"{name}.study: got {claim.study}, allowed: {', '.join(tables)}")
    table = tables[claim.study]
    if claim.quantity not in table:
        allowed = ", ".join(q for q in WORDS if q in table)
        raise InputError(f"{name}.quantity: got {claim.quantity}, allowed: {allowed}")
    return table


def _trials(name: str, claim: Claim, table: pd.DataFrame) -> tuple[Trials, list[Value]]:
    """Find the trials of a claim's arms, and of a trend the levels it goes over, in order."""
    if claim.over is None:
        arms = [term.arm for term in claim.terms]
        weights, levels = [term.weight for term in claim.terms], list[Value]()
    else:
        _refuse_unknown(f"{name}.over", claim.over, table)
        levels = claim.levels or table[claim.over].unique().tolist()
        if len(levels) < 2:
            raise InputError(f"{name}.levels: got {len(levels)}, allowed: at least 2")
        arms = [{claim.over: level} for level in levels]
        if claim.over == "arm" and "label" in table:
            labels = dict(zip(table["arm"], table["label"], strict=True))
            levels = [labels.get(level, level) for level in levels]
        weights = [-1.0, *[0.0] * (len(arms) - 2), 1.0]
    values = [_values(name, claim, table, arm) - claim.than for arm in arms]
    return Trials(values, weights), levels


def _values(name: str, claim: Claim, table: pd.DataFrame, arm: Mapping[str, Value]) -> Floats:
    """Give the quantity of the one arm that has these values, by seed: float64 (seeds,)."""
    for column in arm:
        _refuse_unknown(name, column, table)
    chosen = np.logical_and.reduce([_same(table[column], value) for column, value in arm.items()])
    rows = table[chosen]
    known = table[_arm_columns(table)].drop_duplicates()
    found = len(rows[_arm_columns(table)].drop_duplicates())
    if found != 1:
        allowed = "; ".join(_named(one) for one in known.to_dict("records"))
        raise InputError(f"{name}: got {_named(arm)}, which is {found} arms, allowed: {allowed}")
    if len(rows) < 2:
        raise InputError(f"{claim.study}.seeds: got {len(rows)} seed, allowed: at least 2")
    return rows[claim.quantity].to_numpy(float)


def _same(cells: pd.Series, value: Value) -> pd.Series:
    """Say which cells hold a value: beside texts, a number is a text too."""
    return (cells == value) | (cells == str(value))


def _arm_columns(table: pd.DataFrame) -> list[str]:
    """Columns that tell arms apart: variant, arm and the study's factors, up to seed."""
    columns = list(table.columns)
    return columns[1 : columns.index("seed")]


def _refuse_unknown(name: str, column: str, table: pd.DataFrame) -> None:
    known = _arm_columns(table)
    if column not in known:
        raise InputError(f"{name}: got {column}, allowed: {', '.join(known)}")


def _named(arm: Mapping[Any, Any]) -> str:
    return ", ".join(f"{column} {value}" for column, value in arm.items() if not pd.isna(value))


def _smallest_ratio(name: str, claim: Claim, parameters: pd.DataFrame) -> float:
    """Of the normalization layers, the smallest ratio between two variants' parameters."""
    layers = parameters[parameters["layer"].str.startswith("norm")]
    first, second = sorted(claim.terms, key=lambda term: term.weight, reverse=True)
    counts = []
    for term in (first, second):
        rows = layers[layers["variant"] == term.arm.get("variant")]
        if rows.empty:
            allowed = ", ".join(layers["variant"].unique())
            raise InputError(f"{name}.contrast: got {_named(term.arm)}, allowed: variant {allowed}")
        counts.append(rows.set_index("layer")["parameters"])
    return float((counts[0] / counts[1]).min())
