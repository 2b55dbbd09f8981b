"""The tables of scored trials: tidy, each row named by study, variant, what was changed and seed.

Everything that figures, page and claims show is computed here or in what this calls, once.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.arms import Arm
from normlab.evidence import evaluation, intervals, metrics
from normlab.evidence.evaluation import LabelledImages, Scores, TrainedModel
from normlab.network import networks

TARGET_ACCURACY = 0.98
# Exponents of ten in quarters: from what is as good as zero to beyond 1.
EDGES = [quarters / 4 for quarters in range(-32, 5)]

OF_PAIRS = "study variant other label other_label images seeds difference low high min_p verdict"
"""Columns of the table of comparisons."""


class Scored(NamedTuple):
    """A model and its scores on the test images."""

    model: TrainedModel
    scores: Scores

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class it takes each image for, int64 (n,); of equal ones the first."""
        classes: NDArray[np.int64] = self.scores.probabilities.argmax(1)
        return classes


def test_curves(scored: Sequence[Scored]) -> pd.DataFrame:
    """Test loss and accuracy: columns study, variant, seed, epoch, loss, accuracy."""
    rows = [
        one.model.columns
        | {"epoch": one.model.epoch, "loss": one.scores.loss, "accuracy": one.scores.accuracy}
        for one in scored
    ]
    return pd.DataFrame(rows)


def confusion(final: Sequence[Scored], test: LabelledImages, classes: int) -> pd.DataFrame:
    """Count each pair of classes, summed over seeds.

    Returns
    -------
    DataFrame
        Columns study, variant, true, predicted, count: a row for each pair, in order.
    """
    rows = []
    for arm, trials in _by_arm(final):
        matrix = sum(
            metrics.confusion_matrix(test.labels, one.predicted, classes) for one in trials
        )
        rows += [
            arm.columns | {"true": true, "predicted": predicted, "count": count}
            for (true, predicted), count in np.ndenumerate(matrix)
        ]
    return pd.DataFrame(rows)


def parameters(models: Iterable[TrainedModel]) -> pd.DataFrame:
    """Trainable parameters of every layer: columns study, variant, layer, parameters."""
    rows = [
        model.arm.columns | {"layer": layer, "parameters": count}
        for model in models
        for layer, count in networks.parameters_by_layer(model.network()).items()
    ]
    return pd.DataFrame(rows)


def misclassified(final: Sequence[Scored], test: LabelledImages) -> pd.DataFrame:
    """List the test images that a trial's last model gets wrong, with what it thought of them.

    Returns
    -------
    DataFrame
        Columns study, variant, seed, index (of the test image), true, predicted, probability (of
        the class predicted) and probability_true.
    """
    tables = []
    for one in final:
        wrong = np.flatnonzero(one.predicted != test.labels)
        true, predicted = test.labels[wrong], one.predicted[wrong]
        columns = {
            "index": wrong,
            "true": true,
            "predicted": predicted,
            "probability": one.scores.probabilities[wrong, predicted],
            "probability_true": one.scores.probabilities[wrong, true],
        }
        tables.append(pd.DataFrame(one.model.columns | columns))
    return pd.concat(tables, ignore_index=True)


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
        As `summary_rows`; measures accuracy, loss (nats), ece, small_weights, epochs_to_98 and
        parameters. epochs_to_98 is of no use where a seed never gets there, and empty then.
    """
    rows = []
    for arm, trials in _by_arm(final):
        reached = [
            metrics.first_epoch_reaching(trial["val_accuracy"].to_numpy(), TARGET_ACCURACY)
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
            "epochs_to_98": [math.nan if epoch is None else epoch for epoch in reached],
            "parameters": [evaluation.count_parameters(one.model) for one in trials],
        }
        rows += summary_rows(arm, measures)
    return pd.DataFrame(rows)


def comparisons(final: Sequence[Scored], test: LabelledImages) -> pd.DataFrame:
    """Compare the variants by pairs, on the same test images and seeds.

    Returns
    -------
    DataFrame
        Columns study, variant, other, label, other_label, images, seeds, difference (of accuracy,
        `variant` less `other`), low, high (`intervals.pigeonhole_bootstrap`), min_p
        (`intervals.sign_flip_floor`) and verdict (`intervals.verdict`).
    """
    correct = {
        arm.variant: {one.model.seed: one.predicted == test.labels for one in trials}
        for arm, trials in _by_arm(final)
    }
    rows = []
    for one, other in itertools.combinations(correct, 2):
        ours, theirs = correct[one], correct[other]
        paired = [ours[seed].astype(np.int8) - theirs[seed].astype(np.int8) for seed in ours]
        found = intervals.pigeonhole_bootstrap(np.array(paired))
        rows.append(
            {
                "study": final[0].model.arm.study,
                "variant": one,
                "other": other,
                "label": networks.VARIANTS[one].label,
                "other_label": networks.VARIANTS[other].label,
                "images": len(test.labels),
                "seeds": len(paired),
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "min_p": intervals.sign_flip_floor(len(paired)),
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


def study_scores(scored: Sequence[Scored], histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Score a study's trials, a row for each.

    Parameters
    ----------
    scored
        Its trials' last models.
    histories
        Of each trial: columns epoch, val_loss, val_accuracy, …, or train_eval_loss and
        train_eval_accuracy where it is measured on the images it learns from.

    Returns
    -------
    DataFrame
        Columns study, variant, the study's factors, seed, parameters, small_weights,
        early_val_accuracy (mean over the first half of training), val_loss, val_accuracy,
        test_loss and test_accuracy. With train_eval in place of val there is optimism too: by how
        much accuracy on the training images is better.
    """
    rows = []
    for one, epochs in zip(scored, histories, strict=True):
        own = "train_eval" if one.model.arm.on_training_images else "val"
        last, half = epochs.iloc[-1], math.ceil(len(epochs) / 2)
        row = one.model.columns | {
            "parameters": evaluation.count_parameters(one.model),
            "small_weights": evaluation.small_share(one.model),
            f"early_{own}_accuracy": mean(epochs[f"{own}_accuracy"].iloc[:half].tolist()),
            f"{own}_loss": last[f"{own}_loss"],
            f"{own}_accuracy": last[f"{own}_accuracy"],
            "test_loss": one.scores.loss,
            "test_accuracy": one.scores.accuracy,
        }
        if own == "train_eval":
            row["optimism"] = last[f"{own}_accuracy"] - one.scores.accuracy
        rows.append(row)
    return pd.DataFrame(rows)


def study_summary(arms: Sequence[Arm], table: pd.DataFrame) -> pd.DataFrame:
    """Sum up a study arm by arm, as `summary_rows`: all measures of its table of scores.

    `arms` names the arm of each row.
    """
    measures = table.columns[list(table.columns).index("seed") + 1 :]
    rows = []
    for arm, places in by_arm(arms):
        own = table.iloc[places]
        rows += summary_rows(arm, {name: own[name].tolist() for name in measures})
    return pd.DataFrame(rows)


def summary_rows(arm: Arm, measures: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Sum up an arm's trials.

    Returns
    -------
    A row for each measure: study, variant, the study's factors, label, measure, seeds, mean, std,
    low and high (`intervals.mean_interval`), which are None where a trial has no value.
    """
    label = arm.label or networks.VARIANTS[arm.variant].label
    rows = []
    for measure, values in measures.items():
        known = not any(math.isnan(value) for value in values)
        found = intervals.mean_interval(values) if known else intervals.UNKNOWN
        named = {"label": label, "measure": measure, "seeds": len(values)}
        rows.append(arm.columns | named | found._asdict())
    return rows


def weights(models: Sequence[TrainedModel]) -> pd.DataFrame:
    """Share of each arm's parameters by magnitude, over all its trials.

    Returns
    -------
    DataFrame
        Columns study, variant, the study's factors, low and high (exponents of ten of |w|), share.
    """
    rows = []
    for arm, places in by_arm([model.arm for model in models]):
        shares = evaluation.magnitudes([models[place] for place in places], EDGES)
        rows += [
            arm.columns | {"low": low, "high": high, "share": share}
            for (low, high), share in zip(itertools.pairwise(EDGES), shares, strict=True)
        ]
    return pd.DataFrame(rows)


def rows_of(arm: Arm, table: pd.DataFrame) -> pd.DataFrame:
    """Find the rows of an arm: those with its values in the columns that name it."""
    columns = arm.columns.items()
    same = [table[c].isna() if value is None else table[c] == value for c, value in columns]
    return table[np.logical_and.reduce(same)]


def by_arm(arms: Sequence[Arm]) -> list[tuple[Arm, list[int]]]:
    """Tell the arms of a study apart: each, in order, with the places where it stands."""
    places: dict[str, list[int]] = {}
    for place, arm in enumerate(arms):
        places.setdefault(arm.name, []).append(place)
    return [(arms[found[0]], found) for found in places.values()]


def _by_arm(final: Sequence[Scored]) -> list[tuple[Arm, list[Scored]]]:
    found = by_arm([one.model.arm for one in final])
    return [(arm, [final[place] for place in places]) for arm, places in found]
