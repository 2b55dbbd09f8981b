"""What was found of a claim, in words."""

from collections.abc import Mapping
from typing import Any

from normlab import formatting as fmt
from normlab.evidence.declared import STEPS, WORDS, Claim

TIMES = "\N{MULTIPLICATION SIGN}"
OF_FINDINGS = (
    "name claim source study quantity compared unit test verdict matters effect low high "
    "smallest_effect holds_from holds_to p p_adjusted near changed_by_one seeds_needed "
    "matters_from harmless_to error_ratio error_ratio_low error_ratio_high error_ratio_verdict "
    "seeds trials tests level registration sentence"
)
"""Columns of the table of findings."""


def sentence(claim: Claim, finding: Mapping[str, Any]) -> str:
    """Say in one sentence or two what was found, without a term of statistics."""
    what, quantity = claim.subject, WORDS[claim.quantity]
    if claim.test == "ratio":
        ratio = f"{finding['effect']:g}"
        return f"{what} multiplies {quantity} by {ratio} or more: counted, not estimated."
    factor, least = finding["unit"] == "times", claim.smallest_effect
    verdict, effect = finding["verdict"], finding["effect"]
    none = 1 if factor else 0
    # Of a factor, what would matter is `least` or its inverse; of a difference, either sign.
    points = f"{100 * least:.3g}"
    enough = f"{100 * (least - 1):.3g} %" if factor else f"{points} point{'s' * (points != '1')}"
    between = reach(finding)
    if factor:
        by = f"{what} multiplies {quantity} by {effect:.3g}"
    else:
        does = "raises" if effect > 0 else "lowers"
        by = f"{what} {does} {quantity} by {100 * abs(effect):.2f} points"
    if claim.test == "non-inferiority" and verdict == "supported":
        return f"{what} costs no {enough} of {quantity} (change: {between})."
    if verdict == "no effect that matters":
        said = f"{what} changes {quantity} by less than {enough}, too little to matter ({between})."
    elif verdict != "open":
        said = f"{by} ({between})."
        if not finding["matters"]:
            said = f"{by} ({between}); that it is as much as the {enough} that matter is not shown."
    elif finding["low"] <= none <= finding["high"]:
        said = f"{what} may raise or lower {quantity} ({between}).{_more(finding)}"
    elif claim.test == "trend":
        said = f"{by} at the ends, but not step by step ({between}).{_more(finding)}"
    else:
        said = f"{by} ({between}), which leaves open whether that matters.{_more(finding)}"
    return said + _where(claim, finding)


def effect_text(finding: Mapping[str, Any]) -> str:
    """Write a finding's effect with its interval, in points of accuracy or as a factor."""
    text = f"{TIMES} {{:.3g}}".format if finding["unit"] == "times" else fmt.points
    unit = "" if finding["unit"] == "times" else " points"
    effect, low, high = (finding[key] for key in ("effect", "low", "high"))
    return f"{text(effect)}{'' if low is None else f' [{text(low)}, {text(high)}]'}{unit}"


def reach(finding: Mapping[str, Any]) -> str:
    """Write the ends of a finding's interval."""
    if finding["unit"] == "times":
        return f"{TIMES} {finding['low']:.3g} to {finding['high']:.3g}"
    return f"{fmt.points(finding['low'])} to {fmt.points(finding['high'])} points"


def _more(finding: Mapping[str, Any]) -> str:
    """Say what would settle an open question."""
    seeds, needed = finding["seeds"], finding["seeds_needed"]
    if needed is None:
        return f" {seeds} seeds an arm do not tell, and more are not expected to."
    return f" {seeds} seeds an arm do not tell; some {needed:,} would."


def _where(claim: Claim, finding: Mapping[str, Any]) -> str:
    """Say of a trend from which level on its effect is shown to matter, and up to which not to."""
    step = STEPS.get(claim.over or "", f"{claim.over} {{}}")
    parts = []
    if (level := finding["matters_from"]) is not None:
        parts.append(f"shown to matter from {step.format(_level(level))} on")
    if (level := finding["harmless_to"]) is not None:
        parts.append(f"shown not to matter up to {step.format(_level(level))}")
    return f" It is {' and '.join(parts)}." if parts else ""


def _level(value: float | str) -> str:
    return value if isinstance(value, str) else fmt.power_of_ten(value)
