"""The tables of scored trials: tidy, each row named by study, variant, what was changed and seed.

Everything that figures, page and claims show is computed here or in what this calls, once.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normlab.arms import Arm
from normlab.evidence import evaluation, metrics
from normlab.evidence.evaluation import LabelledImages, Scores, TrainedModel
from normlab.network import networks

# Exponents of ten in quarters: from what is as good as zero to beyond 1.
EDGES = [quarters / 4 for quarters in range(-32, 5)]
TARGET_ACCURACY = 0.99


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
    for arm, trials in trials_by_arm(final):
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


def study_scores(
    models: Sequence[TrainedModel],
    scored: Sequence[Mapping[str, float]],
    histories: Sequence[pd.DataFrame],
) -> pd.DataFrame:
    """Score a study's trials, a row for each.

    Parameters
    ----------
    models
        Its trials' last models.
    scored
        Of each, what `evaluation.score_apart` gives.
    histories
        Of each: columns epoch, val_loss, val_accuracy, …

    Returns
    -------
    DataFrame
        The columns that name a trial; parameters, small_weights, log_val_loss (mean over all
        epochs, natural logarithm), epochs_to_99 (until val_accuracy is 99 %, interpolated; NaN
        where it never is), val_loss, val_accuracy, what `scored` has, and easier: accuracy on the
        test images less that on unseen images of the training split. Where seen images are scored
        there is optimism too: accuracy on them less that on the unseen.
    """
    rows = []
    for model, scores, epochs in zip(models, scored, histories, strict=True):
        last = epochs.iloc[-1]
        row = model.columns | {
            "parameters": evaluation.count_parameters(model),
            "small_weights": evaluation.small_share(model),
            "log_val_loss": metrics.mean_log(epochs["val_loss"]),
            "epochs_to_99": metrics.epochs_to_reach(epochs["val_accuracy"], TARGET_ACCURACY),
            "val_loss": last["val_loss"],
            "val_accuracy": last["val_accuracy"],
            **scores,
            "easier": scores["test_accuracy"] - scores["unseen_accuracy"],
        }
        if "seen_accuracy" in scores:
            row["optimism"] = scores["seen_accuracy"] - scores["unseen_accuracy"]
        rows.append(row)
    return pd.DataFrame(rows)


def weights(models: Sequence[TrainedModel]) -> pd.DataFrame:
    """Share of each arm's parameters by magnitude, over all its trials.

    Returns
    -------
    DataFrame
        The columns that name the arm, low and high (exponents of ten of |w|), share.
    """
    rows = []
    for arm, places in by_arm([model.arm for model in models]):
        shares = evaluation.magnitudes([models[place] for place in places], EDGES)
        rows += [
            arm.columns | {"low": low, "high": high, "share": share}
            for (low, high), share in zip(itertools.pairwise(EDGES), shares, strict=True)
        ]
    return pd.DataFrame(rows)


def by_arm(arms: Sequence[Arm]) -> list[tuple[Arm, list[int]]]:
    """Tell the arms of a study apart: each, in order, with the places where it stands."""
    places: dict[str, list[int]] = {}
    for place, arm in enumerate(arms):
        places.setdefault(arm.name, []).append(place)
    return [(arms[found[0]], found) for found in places.values()]


def trials_by_arm(final: Sequence[Scored]) -> list[tuple[Arm, list[Scored]]]:
    """As `by_arm`, with the trials themselves."""
    found = by_arm([one.model.arm for one in final])
    return [(arm, [final[place] for place in places]) for arm, places in found]
