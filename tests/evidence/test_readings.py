"""Verdicts follow from intervals, and all that is said beside them from verdicts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.evidence import inference, readings
from normlab.evidence.inference import Arm, P, Trend
from normlab.evidence.readings import Kind, Question, Trials, Verdict

SUPPORTED: Verdict = "supported"
CONTRADICTED: Verdict = "contradicted"
HARMLESS: Verdict = "no effect that matters"
OPEN: Verdict = "open"
CONTRAST = Question("contrast", 1, 1.0, 1)
TREND = CONTRAST._replace(kind="trend")
NO_LOSS = CONTRAST._replace(kind="non-inferiority")


@pytest.fixture(autouse=True, scope="module")
def _few_permutations() -> Iterator[None]:
    """Enough for a family of one."""
    whole = inference.trend_test
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "trend_test", lambda arms, *_: whole(arms, 499))
        yield


def pair(ours: list[float], theirs: list[float]) -> Trials:
    return Trials([np.array(ours, float), np.array(theirs, float)], [1.0, -1.0])


def ordered(*means: float, spread: float = 0.01, seeds: int = 6) -> Trials:
    """Arms of a trend, each spread evenly about its mean."""
    evenly = np.linspace(-spread, spread, seeds)
    return Trials([mean + evenly for mean in means], [-1.0, *[0.0] * (len(means) - 2), 1.0])


@dataclass
class Case:
    low: float
    high: float
    contrast: Verdict
    no_loss: Verdict
    matters: bool = False


@pytest.mark.parametrize(
    "case",
    [
        Case(1.5, 2, SUPPORTED, SUPPORTED, matters=True),
        Case(1, 2, SUPPORTED, SUPPORTED, matters=True),
        Case(0.2, 1.1, SUPPORTED, SUPPORTED),
        Case(0.2, 1, SUPPORTED, SUPPORTED),
        Case(0.2, 0.9, HARMLESS, SUPPORTED),
        Case(0, 1, OPEN, SUPPORTED),
        Case(-0.5, 1.1, OPEN, SUPPORTED),
        Case(-0.9, 0.9, HARMLESS, SUPPORTED),
        Case(0, 0, HARMLESS, SUPPORTED),
        Case(-1, 0.9, OPEN, OPEN),
        Case(-1.1, 1.1, OPEN, OPEN),
        Case(-1, 0, OPEN, OPEN),
        Case(-1.1, -0.2, CONTRADICTED, OPEN),
        Case(-1, -0.2, CONTRADICTED, OPEN),
        Case(-1, -1, CONTRADICTED, OPEN, matters=True),
        Case(-2, -1, CONTRADICTED, OPEN, matters=True),
        Case(-2, -1.5, CONTRADICTED, CONTRADICTED, matters=True),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_verdicts_are_read_off_the_interval(
    case: Case, sign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1 as the smallest effect that matters, and all of it mirrored."""
    ends = (case.low, case.high) if sign == 1 else (-case.high, -case.low)
    monkeypatch.setattr(inference, "interval", lambda *_: ends)
    for question, verdict in ((CONTRAST, case.contrast), (NO_LOSS, case.no_loss)):
        reading = readings.read(question._replace(sign=sign), pair([1, 2], [3, 4]))
        assert (reading.verdict, reading.matters) == (verdict, case.matters)
        assert (reading.low, reading.high) == ends
        assert not reading.near


@pytest.mark.parametrize(
    ("means", "sign", "verdict"),
    [
        ((0, 1, 2, 3), 1, SUPPORTED),
        ((0, 1, 2, 3), -1, CONTRADICTED),
        ((3, 2, 1, 0), 1, CONTRADICTED),
        ((3, 2, 1, 0), -1, SUPPORTED),
        ((0, 0.2, 0.4, 0.6), 1, HARMLESS),
        # It climbs step by step, then collapses: no trend up, and none down either.
        ((0, 1, 2, 3, 4, -9), 1, OPEN),
        ((0, 1, 2, 3, 4, -9), -1, OPEN),
        # The ends differ, the order does not show.
        ((0, 3, -3, 2.5, -2.5, 2), 1, OPEN),
    ],
)
def test_a_trend_needs_its_order_too(means: tuple[float, ...], sign: int, verdict: Verdict) -> None:
    question = TREND._replace(sign=sign)
    assert readings.read(question, ordered(*means)).verdict == verdict


values = st.lists(st.integers(-9, 9), min_size=3, max_size=6)


@given(st.sampled_from(get_args(Kind)), st.data(), st.floats(0.1, 20), st.sampled_from([1, -1]))
@settings(max_examples=60, deadline=None)
def test_a_verdict_holds_where_it_says_and_nowhere_else(
    kind: Kind, data: st.DataObject, least: float, sign: int
) -> None:
    arms = [np.array(data.draw(values), float) for _ in range(3 if kind == "trend" else 2)]
    trials = Trials(arms, [-1.0, 0.0, 1.0][-len(arms) :] if kind == "trend" else [1.0, -1.0])
    question = Question(kind, sign, least, 1)
    reading = readings.read(question, trials)
    assert reading.holds_from <= least <= reading.holds_to

    def again(changed: float) -> Verdict:
        return readings.read(question._replace(least=changed), trials).verdict

    slightly = 1e-9
    inside = [reading.holds_from * (1 + slightly) + slightly]
    inside += [1e9 if math.isinf(reading.holds_to) else reading.holds_to * (1 - slightly)]
    outside = [reading.holds_from * (1 - slightly), reading.holds_to * (1 + slightly)]
    if inside[0] < inside[1]:
        assert {again(changed) for changed in inside} == {reading.verdict}
    assert reading.verdict not in {again(c) for c in outside if 1e-6 < c < math.inf}


@pytest.mark.parametrize("question", [CONTRAST, NO_LOSS])
@given(values, values, st.floats(0.1, 20), st.sampled_from([1, -1]), st.sampled_from([1, 20]))
@settings(max_examples=40, deadline=None)
def test_seeds_needed_are_the_fewest_that_settle_it(
    question: Question, ours: list[float], theirs: list[float], least: float, sign: int, family: int
) -> None:
    question = question._replace(sign=sign, least=least, family=family)
    trials = pair(ours, theirs)

    def settled(seeds: int) -> bool:
        arms = tuple(Arm(arm.spread, seeds) for arm in trials.contrast.arms)
        found = trials.contrast._replace(arms=arms)
        return readings.verdict_of(question, found, None) != OPEN

    needed = readings.seeds_needed(question, trials)
    if needed is None:
        assert not settled(100_000)
    else:
        assert settled(needed)
        assert needed == 2 or not settled(needed - 1)


def test_a_loss_of_just_what_matters_is_never_settled() -> None:
    assert readings.seeds_needed(NO_LOSS, pair([0, 1, 2], [1, 2, 3])) is None
    assert readings.seeds_needed(CONTRAST, pair([0, 1, 2], [1, 2, 3])) is not None


@pytest.mark.parametrize(
    ("p", "rising", "expected"),
    [
        # The Normal deviates of 0.05 / 20 and of 0.05, of two sides.
        (0.05, True, math.ceil(6 * (3.02334 / 1.95996) ** 2)),
        (1e-5, True, 3),
        (0.05, False, None),
        (1.0, True, None),
        (0.9999, True, None),
    ],
)
def test_a_trend_takes_as_many_seeds_as_its_order_does(
    p: float, rising: bool, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "trend_test", lambda *_: Trend(P(p, 0.001), rising))
    question, trials = TREND._replace(family=20), ordered(0, 1, 2, 3)
    assert readings.seeds_needed(question, trials) == expected
    # Of what is harmless the order need not show.
    harmless = question._replace(least=3.5)
    assert readings.seeds_needed(harmless, trials) in (2, 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "changed"),
    [
        # One of the trials makes the interval cross 0, by its place or by what it adds to spread.
        ([4.0, 4.1, 4.2, 4.1, -3], [0, 0.1, 0.2, 0.1, 0], True),
        ([4.0, 4.1, 4.2, 4.1, 4], [0, 0.1, 0.2, 0.1, 0], False),
        ([0.1, 0.2, 0.1, 0.2, 2], [0.1, 0.2, 0.1, 0.2, 0.1], True),
        ([4.0, 4.1, 4.2], [0, 0.1], None),
    ],
)
def test_a_trial_left_out_may_change_the_verdict(
    ours: list[float], theirs: list[float], changed: bool | None
) -> None:
    assert readings.changed_by_one(CONTRAST, pair(ours, theirs)) is changed


@pytest.mark.parametrize(("first", "changed"), [(1.9, False), (-0.05, True)])
def test_a_trial_of_a_trends_middle_may_change_its_verdict(first: float, changed: bool) -> None:
    """The ends are far apart: of the middle's trials one is where the first arm's are, or none."""
    ends = np.array([-0.1, 0, 0.1])
    trials = Trials([ends, np.array([first, 2, 2.1]), 4 + ends], [-1, 0, 1])
    question = TREND._replace(family=5)
    assert readings.read(question, trials).verdict == SUPPORTED
    assert readings.changed_by_one(question, trials) is changed


@pytest.mark.parametrize(
    ("means", "matters", "harmless"),
    [
        ((0, 0.2, 0.3, 2, 3), 3, 2),
        ((0, -0.2, -0.3, -2, -3), 3, 2),
        ((0, 2, 3), 1, None),
        ((0, 0.2, 0.1), None, 2),
        ((0, 1, 1), None, None),
        # Both sequences stop at the first gap.
        ((0, 3, 1, 3), 3, None),
        ((0, 0.2, 1, 0.2), None, 1),
        # What matters the other way is not harmless.
        ((0, -3, 0.1), None, None),
        ((0, -3, 3), 2, None),
    ],
)
def test_where_a_trend_starts_to_matter_is_a_fixed_sequence(
    means: tuple[float, ...], matters: int | None, harmless: int | None
) -> None:
    assert readings.where(TREND, ordered(*means).arms) == (matters, harmless)


@pytest.mark.parametrize(
    ("p", "means", "near"),
    [
        (0.051, (0, 1, 2, 3), True),
        (0.049, (0, 1, 2, 3), True),
        (0.054, (0, 1, 2, 3), False),
        (0.05, (0, 0.1, 0.1, 0.1), False),
        (0.05, (0, 1, 1, 0), False),
    ],
)
def test_a_p_by_the_line_is_told_where_the_verdict_depends_on_it(
    p: float, means: tuple[float, ...], near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Trend(P(p, 0.001), rising=True)
    monkeypatch.setattr(inference, "trend_test", lambda *_: found)
    assert readings.read(TREND, ordered(*means)).near is near


def test_p_is_of_the_test_that_fits() -> None:
    one, other = [1.0, 2, 3, 5], [2.0, 4, 6, 9, 9]
    trials = pair(one, other)
    assert readings.read(CONTRAST, trials).p == inference.permutation_test(one, other).value
    turned = Trials(trials.arms, [-1.0, 1.0])
    assert readings.read(CONTRAST, turned).p == inference.permutation_test(one, other).value
    loss = readings.read(NO_LOSS, trials).p
    assert loss == inference.welch_test(trials.contrast, -1)
    assert readings.read(NO_LOSS._replace(sign=-1), trials).p == inference.welch_test(
        trials.contrast, 1
    )
    four = Trials([*trials.arms, *trials.arms[::-1]], [1.0, -1.0, -1.0, 1.0])
    assert readings.read(CONTRAST, four).p == inference.welch_test(four.contrast)
    trend = ordered(0, 1, 2)
    assert readings.read(TREND, trend).p == inference.trend_test(trend.arms).p.value
