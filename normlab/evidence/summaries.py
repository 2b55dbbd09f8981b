"""Scored trials summed up: what each arm and each pair of variants comes to, with its interval."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.arms import Arm
from normlab.evidence import evaluation, intervals, metrics, tables
from normlab.evidence.evaluation import LabelledImages
from normlab.evidence.intervals import Summary
from normlab.evidence.tables import Scored
from normlab.network import networks

OF_PAIRS = "study variant other label other_label images seeds difference low high min_p verdict"
"""Columns of the table of comparisons."""


def main_summary(
    final: Sequence[Scored], histories: Mapping[str, pd.DataFrame], test: LabelledImages
) -> pd.DataFrame:
    """Sum up the main comparison, variant by variant.

    Parameters
    ----------
    final
        The last models of all trials.
    histories
        Of each variant: columns seed, epoch, val_accuracy, …
    test
        The images they were scored on.

    Returns
    -------
    DataFrame
        As `summary_rows`; measures accuracy (its interval is `intervals.accuracy_interval`), loss
        (nats), ece, small_weights, epochs_to_99 (until the validation accuracy is 99 %,
        interpolated) and parameters. epochs_to_99 is of no use where a seed never gets there, and
        empty then.
    """
    rows = []
    for arm, trials in tables.trials_by_arm(final):
        reached = [
            metrics.epochs_to_reach(trial["val_accuracy"], tables.TARGET_ACCURACY)
            for _, trial in histories[arm.variant].groupby("seed", sort=False)
        ]
        measures: dict[str, Sequence[float]] = {
            "accuracy": [one.scores.accuracy for one in trials],
            "loss": [one.scores.loss for one in trials],
            "ece": [
                metrics.expected_calibration_error(one.scores.probabilities, test.labels)
                for one in trials
            ],
            "small_weights": [evaluation.small_share(one.model) for one in trials],
            "epochs_to_99": reached,
            "parameters": [evaluation.count_parameters(one.model) for one in trials],
        }
        accuracy = intervals.accuracy_interval(_correct(trials, test))
        rows += summary_rows(arm, measures, {"accuracy": accuracy})
    return pd.DataFrame(rows)


def comparisons(final: Sequence[Scored], test: LabelledImages) -> pd.DataFrame:
    """Compare the variants by pairs, on the same test images.

    Returns
    -------
    DataFrame
        Columns study, variant, other, label, other_label, images, seeds, difference (of accuracy,
        `variant` less `other`), low, high (`intervals.difference_interval`), min_p
        (`intervals.permutation_floor`) and verdict (`intervals.verdict`).
    """
    correct = {arm.variant: _correct(trials, test) for arm, trials in tables.trials_by_arm(final)}
    rows = []
    for one, other in itertools.combinations(correct, 2):
        ours, theirs = correct[one], correct[other]
        found = intervals.difference_interval(ours, theirs)
        rows.append(
            {
                "study": final[0].model.arm.study,
                "variant": one,
                "other": other,
                "label": networks.VARIANTS[one].label,
                "other_label": networks.VARIANTS[other].label,
                "images": len(test.labels),
                "seeds": len(ours),
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "min_p": intervals.permutation_floor(len(ours), len(theirs)),
                "verdict": intervals.verdict(found.low, found.high),
            }
        )
    return pd.DataFrame(rows, columns=OF_PAIRS.split())


def headline(summary: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Pick what somebody compares: accuracy, loss and ece, each a mean by variant."""
    found: dict[str, dict[str, float]] = {}
    for measure in ("accuracy", "loss", "ece"):
        rows = summary[summary["measure"] == measure]
        found[measure] = dict(zip(rows["variant"], rows["mean"].tolist(), strict=True))
    return found


def study_summary(arms: Sequence[Arm], table: pd.DataFrame) -> pd.DataFrame:
    """Sum up a study arm by arm, as `summary_rows`: all measures of its table of scores.

    `arms` names the arm of each row.
    """
    measures = table.columns[list(table.columns).index("seed") + 1 :]
    rows = []
    for arm, places in tables.by_arm(arms):
        own = table.iloc[places]
        rows += summary_rows(arm, {name: own[name].tolist() for name in measures})
    return pd.DataFrame(rows)


def summary_rows(
    arm: Arm, measures: Mapping[str, Sequence[float]], known: Mapping[str, Summary] | None = None
) -> list[dict[str, Any]]:
    """Sum up an arm's trials.

    Parameters
    ----------
    arm
        Whose they are.
    measures
        The values of each, one per seed.
    known
        Of measures that say more than their values do.

    Returns
    -------
    A row for each measure: study, variant, the study's factors, label, measure, seeds, mean, std,
    low and high (`intervals.mean_interval`, over seeds), which are None where a trial has no value.
    """
    label = arm.label or networks.VARIANTS[arm.variant].label
    rows = []
    for measure, values in measures.items():
        missing = any(math.isnan(value) for value in values)
        over_seeds = intervals.UNKNOWN if missing else intervals.mean_interval(values)
        found = (known or {}).get(measure, over_seeds)
        named = {"label": label, "measure": measure, "seeds": len(values)}
        rows.append(arm.columns | named | found._asdict())
    return rows


def _correct(trials: Sequence[Scored], test: LabelledImages) -> NDArray[np.bool_]:
    """Say of each trial and image whether it is right: (trials, images)."""
    return np.array([one.predicted == test.labels for one in trials])
