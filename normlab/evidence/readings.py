"""What the trials say of a claim: an interval, the verdict read off it, and how firm that is.

A verdict is one of four, and the interval alone decides which, at the level at which all intervals
of the family hold together. Of an effect at least as large as `least` is said that it matters:

- "no effect that matters": the interval lies within (-least, least);
- "supported" or "contradicted": it is clear of 0, on the side that is claimed or on the other;
- "open": all else.

A trend is supported or contradicted if moreover the order is shown by a test of its own. Where no
loss is claimed (non-inferiority), the interval's place to -least alone decides: above it, below,
or open. Only one of "the effect is 0" and "it is at least `least`" can be true, so a claim can go
wrong in one way alone, and is one member of the family whichever verdict it gets.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from normlab.evidence import inference
from normlab.evidence.inference import Contrast, Floats, Trend

Verdict = Literal["supported", "contradicted", "no effect that matters", "open"]
Kind = Literal["contrast", "trend", "non-inferiority"]

ALPHA = 0.05
QUICK = 9_999
"""Permutations of a trend's test where one trial is left out."""


class Question(NamedTuple):
    """A claim in numbers."""

    kind: Kind
    sign: int
    """1 if the quantity is claimed to be higher, -1 if lower."""
    least: float
    """The smallest effect that matters, in the unit of the quantity."""
    family: int
    """How many statements are made together."""

    @property
    def level(self) -> float:
        """The level of confidence of each interval."""
        return 1 - ALPHA / self.family


class Trials(NamedTuple):
    """The values of a contrast's arms, each (seeds,), and their weights.

    Of a trend, all arms in their order, of which the last and the first have the weights 1 and -1.
    """

    arms: list[Floats]
    weights: list[float]

    @property
    def contrast(self) -> Contrast:
        """The weighted sum."""
        used = [place for place, weight in enumerate(self.weights) if weight]
        return inference.contrast(
            [self.arms[place] for place in used], [self.weights[place] for place in used]
        )


class Reading(NamedTuple):
    """What was read off the trials."""

    verdict: Verdict
    effect: float
    low: float
    high: float
    matters: bool
    """Whether an effect of at least the smallest that matters is shown."""
    holds_from: float
    """The verdict is the same for any smallest effect above this ..."""
    holds_to: float
    """... up to this."""
    p: float
    near: bool
    """Whether permutations drawn anew might change the verdict."""


def read(question: Question, trials: Trials) -> Reading:
    """Read the verdict off the trials."""
    found = trials.contrast
    low, high = inference.interval(found, question.level)
    order = inference.trend_test(trials.arms) if question.kind == "trend" else None
    ends = sorted((question.sign * low, question.sign * high))
    near = (
        order is not None
        and abs(order.p.value - ALPHA / question.family) < 3 * order.p.error
        and verdict_of(question, found, None) in ("supported", "contradicted")
    )
    verdict = verdict_of(question, found, order)
    holds_from, holds_to = _holds(question, verdict, *ends)
    return Reading(
        verdict=verdict,
        effect=found.effect,
        low=low,
        high=high,
        matters=ends[0] >= question.least or ends[1] <= -question.least,
        holds_from=holds_from,
        holds_to=holds_to,
        p=_p(question, trials, order),
        near=near,
    )


def verdict_of(question: Question, found: Contrast, order: Trend | None) -> Verdict:
    """Read the verdict off an interval, and off a trend's test where there is one."""
    low, high = sorted(question.sign * end for end in inference.interval(found, question.level))
    if question.kind == "non-inferiority":
        if low > -question.least:
            return "supported"
        return "contradicted" if high < -question.least else "open"
    if -question.least < low and high < question.least:
        return "no effect that matters"
    if low <= 0 <= high or not _in_order(question, found, order):
        return "open"
    return "supported" if low > 0 else "contradicted"


def changed_by_one(question: Question, trials: Trials) -> bool | None:
    """Say whether to leave out any one trial would change the verdict.

    None where an arm has but two, of which neither can be spared.
    """
    if any(arm.size < 3 for arm in trials.arms):
        return None
    verdict = _quickly(question, trials)
    for place, arm in enumerate(trials.arms):
        for left_out in range(arm.size):
            arms = list(trials.arms)
            arms[place] = np.delete(arm, left_out)
            if _quickly(question, trials._replace(arms=arms)) != verdict:
                return True
    return False


def seeds_needed(question: Question, trials: Trials) -> int | None:
    """Say how many seeds an arm would settle what is open, if effect and spread stay as they are.

    Whichever comes first: an interval within (-least, least), or clear of 0, for a trend with its
    order shown. None where no number would do, or none up to 100,000.
    """
    found, least = trials.contrast, question.least
    effect = question.sign * found.effect
    if question.kind == "non-inferiority":
        return inference.seeds_needed(found, abs(effect + least), question.level)
    harmless = inference.seeds_needed(found, least - abs(effect), question.level)
    clear = inference.seeds_needed(found, abs(effect), question.level)
    if question.kind == "trend" and clear is not None:
        order = _order_needs(question, trials)
        clear = None if order is None else max(clear, order)
    return min((seeds for seeds in (harmless, clear) if seeds is not None), default=None)


def where(question: Question, arms: Sequence[Floats]) -> tuple[int | None, int | None]:
    """Find out from which arm on a trend's change matters, and up to which it does not.

    Parameters
    ----------
    question
        Of a trend.
    arms
        In their order, the first being what the others are compared with.

    Returns
    -------
    The place of the arm nearest to the first whose change, in the direction of the ends', is shown
    to matter, by going from the last inwards as long as each is shown to (a fixed sequence, which
    costs no more than one test); and of the last arm whose change is shown not to matter in either
    direction, by going outwards. None where there is none.
    """
    changes = [inference.contrast([arm, arms[0]], [1, -1]) for arm in arms[1:]]
    ends = [inference.interval(change, question.level) for change in changes]
    rises = changes[-1].effect > 0
    matters = harmless = None
    for place in range(len(ends), 0, -1):
        low, high = ends[place - 1]
        if (low if rises else -high) < question.least:
            break
        matters = place
    for place, (low, high) in enumerate(ends, start=1):
        if low <= -question.least or high >= question.least:
            break
        harmless = place
    return matters, harmless


def _p(question: Question, trials: Trials, order: Trend | None) -> float:
    if order is not None:
        return order.p.value
    found = trials.contrast
    if question.kind == "non-inferiority":
        return inference.welch_test(found, -question.sign * question.least)
    if sorted(trials.weights) == [-1, 1]:
        return inference.permutation_test(*trials.arms).value
    return inference.welch_test(found)


def _in_order(question: Question, found: Contrast, order: Trend | None) -> bool:
    if order is None:
        return True
    return order.p.value <= ALPHA / question.family and order.rising == (found.effect > 0)


def _order_needs(question: Question, trials: Trials) -> int | None:
    """Say how many seeds an arm would show a trend's order: its Normal deviate grows as √seeds."""
    order = inference.trend_test(trials.arms)
    if order.rising != (trials.contrast.effect > 0) or order.p.value == 1:
        return None
    needed, seen = (float(ndtri(p / 2)) for p in (ALPHA / question.family, order.p.value))
    seeds = math.ceil(max(arm.size for arm in trials.arms) * (needed / seen) ** 2)
    return seeds if seeds <= inference.MOST_SEEDS else None


def _quickly(question: Question, trials: Trials) -> Verdict:
    found = trials.contrast
    verdict = verdict_of(question, found, None)
    if question.kind != "trend" or verdict not in ("supported", "contradicted"):
        return verdict
    return verdict_of(question, found, inference.trend_test(trials.arms, QUICK))


def _holds(question: Question, verdict: Verdict, low: float, high: float) -> tuple[float, float]:
    """Give the range of smallest effects that leave the verdict as it is."""
    if question.kind == "non-inferiority":
        turns = max(0.0, -high), max(0.0, -low)
        if verdict == "open":
            return turns
        return (turns[1], math.inf) if verdict == "supported" else (0.0, turns[0])
    widest = max(abs(low), abs(high))
    return (widest, math.inf) if verdict == "no effect that matters" else (0.0, widest)
