"""Verdicts on claims, and what was found in words.

A verdict is "supported" or "contradicted" only if the 95 % interval of the effect is clear of zero,
the effect is at least the smallest one that the claim says would matter, and the p-value, corrected
for all claims tested (Holm 1979), is at most 5 %. Everything else is "not shown", and the sentence
says why: too small to matter, or too few seeds to tell.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from normlab import formatting as fmt
from normlab.evidence.declared import WORDS, Claim

ALPHA = 0.05


class Estimate(NamedTuple):
    """What a test found, before the correction for the number of tests."""

    effect: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int | None
    trials: int | None


def decide(claim: Claim, found: Estimate, p_holm: float | None) -> str:
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


def sentence(claim: Claim, found: Estimate, verdict: str) -> str:
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


def effect_text(finding: Mapping[str, Any]) -> str:
    """Write a finding's effect with its interval, in points of accuracy or as a factor."""
    if finding["unit"] == "times":
        return f"\N{MULTIPLICATION SIGN} {finding['effect']:g}"
    effect, low, high = (fmt.points(finding[key]) for key in ("effect", "low", "high"))
    return f"{effect} [{low}, {high}] points"
