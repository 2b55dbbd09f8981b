"""Claims, the tests that judge them, and the verdicts in words.

A verdict is "supported" or "contradicted" only if the 95 % interval of the effect is clear of zero,
the effect is at least the smallest one that the claim says would matter, and the p-value, corrected
for all claims tested (Holm 1979), is at most 5 %. Everything else is "not shown", and the sentence
says why: too small to matter, or too few seeds to tell.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normlab import formatting as fmt
from normlab import params
from normlab.errors import InputError
from normlab.evidence import inference

ALPHA = 0.05
BOOTSTRAP_SEED = 0
WORDS = {
    "test_accuracy": "test accuracy",
    "early_val_accuracy": "validation accuracy over the first half of training",
    "overstatement": "accuracy",
    "parameters": "the parameters of a normalization layer",
}

Word = Annotated[str, Field(min_length=1)]


class Claim(BaseModel):
    """A claim and how to judge it, as `studies/claims.yaml` explains."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    claim: Word = Field(description="a sentence")
    source: Word = Field(description="who claims it")
    study: Word = Field(description="a study, or pipeline")
    quantity: Literal["test_accuracy", "early_val_accuracy", "overstatement", "parameters"] = Field(
        description=", ".join(WORDS)
    )
    subject: Word = Field(description="what is done to the quantity")
    test: Literal["trend", "contrast", "non-inferiority", "ratio"] = Field(
        description="trend, contrast, non-inferiority or ratio"
    )
    direction: Literal["higher", "lower"] = Field(description="higher or lower")
    smallest_effect: float = Field(gt=0, description="a number above 0")
    settings: list[str] = Field(default=[], description="for a trend alone: settings in order")
    contrast: dict[str, float] = Field(
        default={}, description="weights by setting; none for a trend"
    )


class File(BaseModel):
    """All of `studies/claims.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    reported: dict[str, float] = Field(description="accuracies by variant")
    claims: dict[str, Claim] = Field(min_length=1, description="claims by name")


class Measured(NamedTuple):
    """What a test found, before the correction for the number of tests."""

    effect: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int | None
    trials: int | None


def load(path: Path) -> File:
    """Read and validate the claims.

    Raises
    ------
    InputError
        If the file cannot be read or a claim is not as it should be; one line a fault, with file,
        claim, key, value and what is allowed.
    """
    values = params.mapping(path)
    try:
        file = File.model_validate(values)
    except ValidationError as error:
        faults = [_fault(list(item["loc"]), item["input"], item["type"]) for item in error.errors()]
        raise InputError("\n".join(f"{path}: {fault}" for fault in faults)) from None
    for name, claim in file.claims.items():
        trend, two = claim.test == "trend", len(claim.contrast) == 2
        if trend == bool(claim.contrast) or (claim.settings and not trend):
            got = f"settings {claim.settings} and contrast {claim.contrast}"
            raise InputError(
                f"{path}: {name}: got {got}, allowed: contrast, or for a trend settings"
            )
        if claim.test == "ratio" and not two:
            got = f"{len(claim.contrast)} variants"
            raise InputError(f"{path}: {name}.contrast: got {got}, allowed: 2 for a ratio")
    return file


def _fault(place: list[Any], value: Any, kind: str) -> str:
    fields = Claim.model_fields if len(place) > 2 else File.model_fields
    key = place[2] if len(place) > 2 else place[0]
    where = ".".join(str(part) for part in place if part != "claims")
    if kind == "extra_forbidden":
        return f"{where}: unknown key, allowed: {', '.join(fields)}"
    got = "nothing" if kind == "missing" else repr(value)
    return f"{where}: got {got}, allowed: {fields[key].description}"


def judge(
    claims: dict[str, Claim], tables: dict[str, pd.DataFrame], parameters: pd.DataFrame
) -> dict[str, Any]:
    """Judge all claims as one family.

    Parameters
    ----------
    claims
        By name, in the order in which to report them.
    tables
        The scores of each study: columns setting (str), seed and the quantities, fractions.
    parameters
        Columns variant, layer, parameters (a count).

    Returns
    -------
    The content of `reports/findings.json`: `alpha`, the number of `tests` in the family, and
    `findings` by the claims' names. Effects and intervals are fractions of accuracy where `unit` is
    "points", and factors where it is "times".

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
        verdict = decide(claim, found, p_holm.get(name))
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
            "sentence": sentence(claim, found, verdict),
        }
    return {"alpha": ALPHA, "tests": len(tested), "findings": findings}


def measure(
    name: str, claim: Claim, tables: dict[str, pd.DataFrame], parameters: pd.DataFrame
) -> Measured:
    """Estimate the effect that a claim speaks of, its interval and its p-value."""
    if claim.test == "ratio":
        return Measured(_smallest_ratio(name, claim, parameters), *[None] * 5)
    if claim.study not in tables:
        raise InputError(f"{name}.study: got {claim.study}, allowed: {', '.join(tables)}, pipeline")
    values = _by_seed(name, claim, tables[claim.study])
    p = None
    if claim.test == "trend":
        effects = inference.fitted_change(values.to_numpy())
        p, rising = inference.trend_test(values.to_numpy(), seed=BOOTSTRAP_SEED)
        if rising != (math.fsum(effects) > 0):
            p = 1.0  # what rises step by step and yet ends lower, or the other way, is no trend
    else:
        weighted = values.to_numpy() * [claim.contrast[setting] for setting in values.columns]
        effects = np.array([math.fsum(row) for row in weighted])
        p = inference.sign_flip_test(effects) if claim.test == "contrast" else None
    interval = inference.paired_interval(effects, seed=BOOTSTRAP_SEED)
    # To the digits that the findings keep, so that sentence, table and page round the same number.
    effect, low, high = (round(value, 5) for value in interval)
    return Measured(effect, low, high, p, len(effects), values.size)


def _by_seed(name: str, claim: Claim, table: pd.DataFrame) -> pd.DataFrame:
    """Lay out a quantity as (seeds, settings), with the settings that the claim compares."""
    if claim.quantity not in table:
        allowed = ", ".join(q for q in WORDS if q in table)
        raise InputError(f"{name}.quantity: got {claim.quantity}, allowed: {allowed}")
    order = list(dict.fromkeys(table["setting"]))
    chosen = claim.settings or list(claim.contrast) or order
    for setting in chosen:
        if setting not in order:
            key = "settings" if claim.settings else "contrast"
            raise InputError(f"{name}.{key}: got {setting}, allowed: {', '.join(order)}")
    by_setting = {s: table[table["setting"] == s].set_index("seed")[claim.quantity] for s in chosen}
    values = pd.DataFrame(by_setting)
    if values.isna().any(axis=None):
        raise InputError(f"{name}: got settings with different seeds, allowed: the same seeds")
    if len(values) < 2:
        raise InputError(f"{claim.study}_seeds: got {len(values)} seed, allowed: at least 2")
    return values


def _smallest_ratio(name: str, claim: Claim, parameters: pd.DataFrame) -> float:
    """Of the normalization layers, the smallest ratio between two variants' parameters."""
    layers = parameters[parameters["layer"].str.startswith("norm")]
    counts = {
        str(variant): rows.set_index("layer")["parameters"]
        for variant, rows in layers.groupby("variant", sort=False)
    }
    for variant in claim.contrast:
        if variant not in counts:
            allowed = ", ".join(counts)
            raise InputError(f"{name}.contrast: got {variant}, allowed: {allowed}")
    ours, theirs = sorted(claim.contrast, key=lambda v: claim.contrast[v], reverse=True)
    return float((counts[ours] / counts[theirs]).min())


def decide(claim: Claim, found: Measured, p_holm: float | None) -> str:
    """Give the verdict on a claim."""
    least = claim.smallest_effect
    if claim.test == "ratio":
        return "supported" if found.effect >= least else "contradicted"
    assert found.low is not None
    assert found.high is not None
    sign = 1 if claim.direction == "higher" else -1
    low, high = sorted((sign * found.low, sign * found.high))
    effect = sign * found.effect
    if claim.test == "non-inferiority":
        if low > -least:
            return "supported"
        return "contradicted" if high < 0 and effect <= -least else "not shown"
    assert p_holm is not None
    if p_holm <= ALPHA and low > 0 and effect >= least:
        return "supported"
    if p_holm <= ALPHA and high < 0 and effect <= -least:
        return "contradicted"
    return "not shown"


def sentence(claim: Claim, found: Measured, verdict: str) -> str:
    """Say in one sentence what was found, without a term of statistics."""
    what, quantity = claim.subject, WORDS[claim.quantity]
    least = f"{100 * claim.smallest_effect:g} points"
    if claim.test == "ratio":
        return f"{what} multiplies {quantity} by {found.effect:g} or more: counted, not estimated."
    low, high = found.low or 0.0, found.high or 0.0
    between = f"{fmt.points(low)} to {fmt.points(high)} points"
    does = "raises" if found.effect > 0 else "lowers"
    by = f"{what} {does} {quantity} by {100 * abs(found.effect):.2f} points"
    if claim.test == "non-inferiority" and verdict == "supported":
        return f"{what} costs no {least} of {quantity} (change: {between})."
    if verdict != "not shown":
        return f"{by} ({between})."
    if max(abs(low), abs(high)) < claim.smallest_effect:
        return f"{what} changes {quantity} by less than {least}, too little to matter ({between})."
    if low <= 0 <= high:
        return f"{what} may raise or lower {quantity}, {found.seeds} seeds do not tell ({between})."
    if abs(found.effect) < claim.smallest_effect:
        return f"{by}, less than the {least} that would matter ({between})."
    if claim.test == "trend":
        return f"{by} at the ends, but not step by step ({between})."
    return f"{by} here, but among so many comparisons that may be chance ({between})."


def markdown(findings: dict[str, Any]) -> str:
    """Write the findings as a table."""
    lines = [
        "| claim | verdict | effect [95 % interval] | p, corrected | trials | in plain words |",
        "|---|---|---|---|---|---|",
    ]
    for row in findings["findings"].values():
        p = "" if row["p"] is None else f"{row['p_holm']:.3f}"
        cells = [
            f"{row['claim']} ({row['source']})",
            f"**{row['verdict']}**",
            effect_text(row),
            p,
            "" if row["trials"] is None else str(row["trials"]),
            row["sentence"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    pairs = {row["seeds"] for row in findings["findings"].values() if row["smallest_p"]}
    count = findings["tests"]
    lines += [
        f"\nThe smallest p that {seeds} seeds can give a pair is "
        f"{inference.smallest_p(seeds, 1):.2g}, where all of them agree: corrected for "
        f"{count} tests, {inference.smallest_p(seeds, count):.2g} unless other claims have smaller "
        "ones."
        for seeds in sorted(pairs)
    ]
    return "\n".join(lines) + "\n"


def effect_text(finding: dict[str, Any]) -> str:
    """Write a finding's effect with its interval, in points of accuracy or as a factor."""
    if finding["unit"] == "times":
        return f"\N{MULTIPLICATION SIGN} {finding['effect']:g}"
    effect, low, high = (fmt.points(finding[key]) for key in ("effect", "low", "high"))
    return f"{effect} [{low}, {high}] points"
