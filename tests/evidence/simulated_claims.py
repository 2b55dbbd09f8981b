"""Families of made-up claims, whose truth is known: how often their verdicts are right.

    python -m tests.evidence.simulated_claims

prints the tables of `docs/statistics.md`, of intervals over seeds, in a minute or two.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import numpy as np

from normlab.evidence import inference, readings
from normlab.evidence.inference import Floats
from normlab.evidence.readings import Kind, Question, Trials, Verdict

SEEDS = (10, 12, 20)
FAMILY = 70
"""Statements made together; of our claims there are 69."""
LEAST = 0.001
"""The smallest difference of accuracies that matters, as in most of our claims."""
SPREAD = 7e-4
"""Standard deviation over seeds, of accuracies."""
ARMS = 6
PAIRS = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (5, 0), (4, 1)]
"""Contrasts of a study: its arms are shared, and those compared have places one odd, one even."""
ENDS = [-1.0, 0.0, 0.0, 1.0]
"""Weights of a study's trend, over its first four arms."""
DRAWS = 3_999
"""Permutations of a trend's test, fewer than claims are judged by."""

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "Normal": lambda generator, shape: generator.normal(size=shape),
    "in steps": lambda generator, shape: np.round(7 * generator.normal(size=shape)) / 7,
    "skewed": lambda generator, shape: generator.exponential(size=shape) - 1,
    "heavy-tailed": lambda generator, shape: generator.standard_t(3, size=shape) / np.sqrt(3),
}
"""Mean 0, SD 1; a step is what 0.0001 is to an SD of 0.0007."""


@contextmanager
def rounded_sums() -> Iterator[None]:
    """Round sums as they go: that they are exact takes most of the time, and shows nothing here."""

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    def variance(values: Sequence[float]) -> float:
        middle = mean(values)
        return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)

    with mock.patch.multiple(inference, mean=mean, variance=variance):
        yield


def coverage(noise: str, ratio: int, seeds: int, repeats: int) -> list[float]:
    """Draw pairs of arms, of which one spreads `ratio` times as much, and count what is covered.

    Returns
    -------
    Shares of the intervals that hold the truth: at 95 %, and at the level of one of a family.
    """
    generator, levels = np.random.default_rng(0), (0.95, 1 - readings.ALPHA / FAMILY)
    covered = np.zeros(2)
    for _ in range(repeats):
        one, other = NOISES[noise](generator, (2, seeds))
        found = inference.contrast([ratio * one, other], [1, -1])
        ends = [inference.interval(found, level) for level in levels]
        covered += [low <= 0 <= high for low, high in ends]
    return [float(share) for share in covered / repeats]


def study(generator: np.random.Generator, means: Sequence[float], seeds: int) -> list[Floats]:
    """Accuracies, less what they are about, of arms with these means."""
    return list(generator.normal(means, SPREAD, size=(seeds, len(means))).T)


def verdict(question: Question, trials: Trials) -> Verdict:
    """Read a verdict off; a trend's order is asked for where something depends on it."""
    found = trials.contrast
    said = readings.verdict_of(question, found, None)
    if question.kind != "trend" or said not in ("supported", "contradicted"):
        return said
    return readings.verdict_of(question, found, inference.trend_test(trials.arms, DRAWS))


def wrong_families(effect: float, wrong: Sequence[str], seeds: int, repeats: int) -> float:
    """Give the share of families in which anything wrong is said.

    A family is of seven studies, each with seven contrasts of six arms and a trend over four of
    them, which makes three statements. All pairs that are compared differ by `effect`, one way or
    other.
    """
    generator, bad = np.random.default_rng(0), 0
    contrast, trend = Question("contrast", 1, LEAST, FAMILY), Question("trend", 1, LEAST, FAMILY)
    for _ in range(repeats):
        said: list[str] = []
        for _ in range(FAMILY // (len(PAIRS) + 3)):
            arms = study(generator, [0, effect] * (ARMS // 2), seeds)
            said += [
                verdict(contrast, Trials([arms[one], arms[other]], [1, -1])) for one, other in PAIRS
            ]
            said.append(verdict(trend, Trials(arms[:4], ENDS)))
            matters, harmless = readings.where(trend, arms[:4])
            said += ["supported"] if matters else []
            said += ["no effect that matters"] if harmless else []
        bad += any(one in wrong for one in said)
    return bad / repeats


def losses_missed(seeds: int, repeats: int) -> float:
    """Give the share of families of claims of no loss, all just wrong, with one supported."""
    generator, bad = np.random.default_rng(0), 0
    question = Question("non-inferiority", 1, LEAST, FAMILY)
    for _ in range(repeats):
        studies = [
            study(generator, [0, -LEAST] * (ARMS // 2), seeds) for _ in range(FAMILY // len(PAIRS))
        ]
        compared = [
            (arms, sorted(pair, key=lambda n: -(n % 2))) for arms in studies for pair in PAIRS
        ]
        bad += any(
            verdict(question, Trials([arms[worse], arms[better]], [1, -1])) == "supported"
            for arms, (worse, better) in compared
        )
    return bad / repeats


def share(
    kind: Kind, said: Verdict, effect: float, spread: float, seeds: int, repeats: int
) -> float:
    """Give the share of a family's claims that get a verdict; a trend's four arms change evenly."""
    generator, question = np.random.default_rng(0), Question(kind, 1, LEAST, FAMILY)
    weights = ENDS if kind == "trend" else [-1.0, 1.0]
    means = np.linspace(0, effect, len(weights))
    found = 0
    for _ in range(repeats):
        arms = list(generator.normal(means, spread, size=(seeds, len(weights))).T)
        found += verdict(question, Trials(arms, weights)) == said
    return found / repeats


def print_table(head: str, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Print a table of shares, in per cent, those near to 100 with another digit."""
    print(f"\n{head}\n|{'---|' * (head.count('|') - 1)}")
    for name, shares in rows:
        cells = [f"{100 * one:.{2 if one > 0.98 else 1}f}" for one in shares]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


@rounded_sums()
def main() -> None:
    """Print all tables."""
    titles = " | ".join(f"{n} seeds" for n in SEEDS)
    print_table(
        f"| values | spreads | {titles} | {' | '.join(f'{n} seeds, of {FAMILY}' for n in SEEDS)} |",
        [
            (
                f"{noise} | {'equal' if ratio == 1 else f'1 to {ratio}'}",
                [
                    one
                    for level in zip(
                        *(coverage(noise, ratio, n, 10_000) for n in SEEDS), strict=True
                    )
                    for one in level
                ],
            )
            for noise in NOISES
            for ratio in (1, 3)
        ],
    )
    clear = ("supported", "contradicted")
    print_table(
        f"| all effects | wrong | {titles} |",
        [
            ("0 | supported or contradicted", [wrong_families(0, clear, n, 4000) for n in SEEDS]),
            (
                "as large as matters | no effect that matters",
                [wrong_families(LEAST, ["no effect that matters"], n, 4000) for n in SEEDS],
            ),
            (
                "a loss as large as matters | no loss, supported",
                [losses_missed(n, 4000) for n in SEEDS],
            ),
        ],
    )
    kinds: tuple[Kind, ...] = ("contrast", "trend")
    none: Verdict = "no effect that matters"
    rows = []
    for kind in kinds:
        for effect in (0, 1, 1.5):
            for spread in (5e-4, 7e-4):
                said: Verdict = "supported" if effect else none
                repeats = 1000 if kind == "trend" else 4000
                found = [share(kind, said, effect * LEAST, spread, n, repeats) for n in SEEDS]
                rows.append((f"{kind} | {effect:g} | {100 * spread:.2f} | {said}", found))
    print_table(f"| claim | effect | SD over seeds | verdict | {titles} |", rows)


if __name__ == "__main__":
    main()
