"""Claims put to the test: effects, intervals and p-values from the tables of the studies."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.errors import InputError
from normlab.evidence import inference, verdicts
from normlab.evidence.declared import WORDS, Claim, Value
from normlab.evidence.verdicts import ALPHA, Estimate

BOOTSTRAP_SEED = 0


def judge(
    claims: Mapping[str, Claim], tables: Mapping[str, pd.DataFrame], parameters: pd.DataFrame
) -> dict[str, Any]:
    """Judge all claims as one family.

    Parameters
    ----------
    claims
        By name, in the order in which to report them.
    tables
        The scores of each study: columns study, variant, the study's factors, seed and the
        quantities, fractions.
    parameters
        Columns variant, layer, parameters (a count).

    Returns
    -------
    `alpha`, the number of `tests` in the family, and `findings` by the claims' names. Effects and
    intervals are fractions of accuracy where `unit` is "points", and factors where it is "times".

    Raises
    ------
    InputError
        If a claim names what its study does not have, or a study has fewer than two seeds.
    """
    measured = {n: measure(n, claim, tables, parameters) for n, claim in claims.items()}
    tested = [name for name, found in measured.items() if found.p is not None]
    corrected = inference.holm([p for found in measured.values() if (p := found.p) is not None])
    p_holm = dict(zip(tested, corrected, strict=True))
    findings = {}
    for name, claim in claims.items():
        found = measured[name]
        verdict = verdicts.decide(claim, found, p_holm.get(name))
        flips = claim.test == "contrast" and found.seeds
        findings[name] = {
            "claim": claim.claim,
            "source": claim.source,
            "study": claim.study,
            "quantity": WORDS[claim.quantity],
            "compared": claim.subject,
            "unit": "times" if claim.test == "ratio" else "points",
            "test": claim.test,
            "verdict": verdict,
            "effect": found.effect,
            "low": found.low,
            "high": found.high,
            "smallest_effect": claim.smallest_effect,
            "p": found.p,
            "p_holm": p_holm.get(name),
            "smallest_p": inference.smallest_p(flips, 1) if flips else None,
            "seeds": found.seeds,
            "trials": found.trials,
            "sentence": verdicts.sentence(claim, found, verdict),
        }
    return {"alpha": ALPHA, "tests": len(tested), "findings": findings}


def table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Lay out what `judge` found, a row for each claim: columns name and those of a finding.

    The columns alpha and tests, the same in all rows, are of the family.
    """
    family = {"alpha": found["alpha"], "tests": found["tests"]}
    rows = [{"name": name} | row | family for name, row in found["findings"].items()]
    return pd.DataFrame(rows).astype(dict.fromkeys(("seeds", "trials"), "Int64"))


def metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what somebody compares: how many verdicts of each kind, and every effect."""
    findings = found["findings"]
    counts = Counter(row["verdict"] for row in findings.values())
    kinds = ("supported", "contradicted", "not shown")
    return {kind.replace(" ", "_"): counts[kind] for kind in kinds} | {
        "effect": {name: row["effect"] for name, row in findings.items()}
    }


def measure(
    name: str, claim: Claim, tables: Mapping[str, pd.DataFrame], parameters: pd.DataFrame
) -> Estimate:
    """Estimate the effect that a claim speaks of, its interval and its p-value."""
    if claim.test == "ratio":
        return Estimate(_smallest_ratio(name, claim, parameters), *[None] * 5)
    if claim.study not in tables:
        raise InputError(f"{name}.study: got {claim.study}, allowed: {', '.join(tables)}, main")
    table = tables[claim.study]
    if claim.quantity not in table:
        allowed = ", ".join(q for q in WORDS if q in table)
        raise InputError(f"{name}.quantity: got {claim.quantity}, allowed: {allowed}")
    p = None
    if claim.over is not None:
        values = _by_seed(name, claim, table, _trend_arms(name, claim, table))
        effects = inference.fitted_change(values)
        p, rising = inference.trend_test(values, seed=BOOTSTRAP_SEED)
        if rising != (math.fsum(effects) > 0):
            p = 1.0  # what rises step by step and yet ends lower, or the other way, is no trend
    else:
        values = _by_seed(name, claim, table, [term.arm for term in claim.terms])
        weighted = values * [term.weight for term in claim.terms]
        effects = np.array([math.fsum(row) for row in weighted])
        p = inference.sign_flip_test(effects) if claim.test == "contrast" else None
    interval = inference.paired_interval(effects, seed=BOOTSTRAP_SEED)
    # To the digits that the findings keep, so that sentence, table and page round the same number.
    effect, low, high = (round(value, 5) for value in interval)
    return Estimate(effect, low, high, p, len(effects), values.size)


def _trend_arms(name: str, claim: Claim, table: pd.DataFrame) -> list[dict[str, Value]]:
    """Name the arms that a trend goes over: those of the levels listed, or all, in order."""
    assert claim.over is not None
    _refuse_unknown(f"{name}.over", claim.over, table)
    levels = claim.levels or table[claim.over].unique().tolist()
    return [{claim.over: level} for level in levels]


def _by_seed(
    name: str, claim: Claim, table: pd.DataFrame, arms: Sequence[Mapping[str, Value]]
) -> NDArray[np.float64]:
    """Lay out a quantity as (seeds, arms), seeds in the order of the first arm's."""
    columns = [_rows(name, arm, table).set_index("seed")[claim.quantity] for arm in arms]
    if any(set(column.index) != set(columns[0].index) for column in columns):
        raise InputError(f"{name}: got arms with different seeds, allowed: the same seeds")
    if len(columns[0]) < 2:
        raise InputError(f"{claim.study}.seeds: got {len(columns[0])} seed, allowed: at least 2")
    return np.stack([column[columns[0].index].to_numpy(float) for column in columns], axis=1)


def _rows(name: str, arm: Mapping[str, Value], table: pd.DataFrame) -> pd.DataFrame:
    """Find the trials of the one arm that has these values."""
    for column in arm:
        _refuse_unknown(name, column, table)
    chosen = np.logical_and.reduce([table[column] == value for column, value in arm.items()])
    rows = table[chosen]
    known = table[_arm_columns(table)].drop_duplicates()
    found = len(rows[_arm_columns(table)].drop_duplicates())
    if found != 1:
        allowed = "; ".join(_named(one) for one in known.to_dict("records"))
        raise InputError(f"{name}: got {_named(arm)}, which is {found} arms, allowed: {allowed}")
    return rows


def _arm_columns(table: pd.DataFrame) -> list[str]:
    """Columns that tell arms apart: variant and the study's factors, between study and seed."""
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
