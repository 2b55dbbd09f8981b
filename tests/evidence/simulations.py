"""Studies of made-up networks, whose truth is known: what an interval or a test gives on them.

    python -m tests.evidence.simulations

prints the table of `docs/statistics.md`, from 2,000 pairs of arms a cell, in some ten minutes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from normlab.evidence.intervals import accuracy_interval, difference_interval, mean_interval

IMAGES = 10_000
THRESHOLD = float(stats.norm.isf(0.006))
SHARED = 0.9
"""Of what makes an image hard for a trial: the share that makes it hard for every trial."""


class Covered(NamedTuple):
    """How often an interval had the truth in it; and the spread of the seeds' accuracies."""

    accuracy: float
    difference: float
    over_seeds: float
    """Student's interval over seeds, of the accuracy."""
    spread: float
    """Mean standard deviation over seeds, points."""


def arms(
    generator: np.random.Generator, seeds: int, skill: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw two arms of the same accuracy, wrong on 0.6 % of the images, mostly on the same.

    A trial is right about an image that is not harder than it can bear; `skill` is the standard
    deviation of what a seed adds to all images, in units of their difficulty.
    """
    hard = math.sqrt(SHARED) * generator.normal(size=IMAGES)
    noise = math.sqrt(1 - SHARED) * generator.normal(size=(2, seeds, IMAGES))
    one, other = hard + skill * generator.normal(size=(2, seeds, 1)) + noise < THRESHOLD
    return one, other


def coverage(seeds: int, skill: float, repeats: int, seed: int = 0) -> Covered:
    """Draw pairs of arms, and count the intervals that have the truth in them."""
    generator = np.random.default_rng(seed)
    truth = float(stats.norm.cdf(THRESHOLD / math.hypot(1, skill)))

    def found() -> Iterator[Sequence[float]]:
        for _ in range(repeats):
            one, other = arms(generator, seeds, skill)
            accuracy, over_seeds = accuracy_interval(one), mean_interval(one.mean(axis=1))
            difference = difference_interval(one, other)
            assert accuracy.low is not None
            assert accuracy.high is not None
            assert accuracy.std is not None
            assert over_seeds.low is not None
            assert over_seeds.high is not None
            yield (
                accuracy.low <= truth <= accuracy.high,
                difference.low <= 0 <= difference.high,
                over_seeds.low <= truth <= over_seeds.high,
                100 * accuracy.std,
            )

    return Covered(*np.mean(list(found()), axis=0).tolist())


def main() -> None:
    """Print the table."""
    print("| seeds | SD over seeds | accuracy | difference | Student's t over seeds |")
    print("|---|---|---|---|---|")
    for seeds in (3, 6, 12, 20):
        for skill in (0.0, 0.03, 0.06, 0.12):
            found = coverage(seeds, skill, 2000)
            shares = " | ".join(f"{100 * share:.1f}" for share in found[:3])
            print(f"| {seeds} | {found.spread:.2f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
