"""What each figure shows, as a small table: prepared once, drawn by matplotlib and by Altair.

A series is named as the summary of its study labels it, and comes in the summary's order.
Accuracies are fractions, losses are in nats.
"""

import numpy as np
import pandas as pd

MEASURES = ["accuracy", "mean", "low", "high"]
"""Columns of numbers that are drawn."""

SUMMARY = "study variant label measure seeds mean low high"
READ = {
    "test_curves": "study variant seed epoch loss accuracy",
    "parameters": "study variant layer parameters",
    "misclassified": "study variant seed index true predicted probability",
    "confusion": "study variant true predicted count",
    "history": "study variant seed epoch val_loss val_accuracy",
}
"""Columns that figures and page are made of, by table."""


def bounded(summary: pd.DataFrame) -> pd.DataFrame:
    """Cut the intervals of accuracies and shares off at 0 and 1: no mean can lie beyond.

    `summary` has columns measure, low and high.
    """
    share = summary["measure"].str.endswith("accuracy") | (summary["measure"] == "small_weights")
    ends = summary[["low", "high"]].astype(float)
    return summary.assign(**ends.mask(share, ends.clip(0, 1), axis=0))


def named(table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Add `series`, the label that the summary gives each row's arm.

    Parameters
    ----------
    table, summary : DataFrame
        Of the same study: columns study, variant and the study's factors, by which the rows are
        matched; the summary has `label` after them.
    """
    arms = summary.loc[:, :"label"].drop_duplicates().rename(columns={"label": "series"})
    return table.merge(arms, how="left", on=[name for name in arms if name != "series"])


def after_last_epoch(curves: pd.DataFrame) -> pd.DataFrame:
    """Pick the rows of each series' last epoch: columns series, epoch, …."""
    return curves[curves["epoch"] == curves.groupby("series")["epoch"].transform("max")]


def spread(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Sum up the seeds of every epoch.

    Parameters
    ----------
    table : DataFrame
        Columns series, seed, epoch (from 1) and the measure.
    measure : str

    Returns
    -------
    DataFrame
        Columns series, epoch, mean, low and high (the lowest and the highest seed), and at: where
        on the axis of epochs to draw it. Of a single epoch the series stand side by side, since
        they would hide each other.
    """
    by_epoch = table.groupby(["series", "epoch"], sort=False)[measure]
    found = by_epoch.agg(mean="mean", low="min", high="max").reset_index()
    place = found.groupby("series", sort=False).ngroup()
    apart = 0.1 * (place - place.max() / 2) if len(set(found["epoch"])) == 1 else 0
    return found.assign(at=found["epoch"] + apart)


def on_log_axis(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Give what is drawn of the columns that are in `MEASURES`: a loss, or the error rate.

    A logarithm needs a floor: one error in 10,000, and a loss as small.
    """
    values = table[table.columns.intersection(MEASURES)]
    drawn = values if measure == "loss" else 1 - values
    return drawn.astype(float).clip(lower=1e-4)


def accuracies(
    trials: pd.DataFrame, summary: pd.DataFrame, measure: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Place the trials of every arm beside their mean and its interval.

    Parameters
    ----------
    trials : DataFrame
        Columns series, seed and the measure, an accuracy.
    summary : DataFrame
        Columns label, measure, mean, low and high, of the arms to show.
    measure : str

    Returns
    -------
    points : DataFrame
        Columns series, at, seed, accuracy, a row for each trial of these arms.
    means : DataFrame
        Columns series, at (0, 1, 2, …), mean, low and high, a row for each arm.
    """
    means = _means(summary, measure)
    means["at"] = range(len(means))
    shown = trials[trials["series"].isin(means["series"])]
    seeds = max(2, shown["seed"].nunique())
    order = shown.groupby("series")["seed"].rank(method="first") - 1
    at = shown["series"].map(means.set_index("series")["at"]) - 0.34 + 0.2 * order / (seeds - 1)
    points = shown.assign(at=at, accuracy=shown[measure])
    return points[["series", "at", "seed", "accuracy"]], means


def by_size(summary: pd.DataFrame, measure: str, factor: str) -> pd.DataFrame:
    """Place the means of every series along a log axis of sizes, those of one size side by side.

    Parameters
    ----------
    summary : DataFrame
        Columns label, measure, mean, low, high and the factor: a size.

    Returns
    -------
    DataFrame
        As the means of `accuracies`, with the size too.
    """
    means = _means(summary, measure, factor).rename(columns={factor: "size"})
    place = means.groupby("series", sort=False).ngroup()
    apart = np.power(1.05, place - place.max() / 2)
    return means.assign(at=(means["size"] * apart).round(4))


def _means(summary: pd.DataFrame, measure: str, *factors: str) -> pd.DataFrame:
    rows = summary[summary["measure"] == measure].rename(columns={"label": "series"})
    means: pd.DataFrame = rows[["series", *factors, "mean", "low", "high"]].astype(
        {"low": float, "high": float}
    )
    return means.reset_index(drop=True)


def distribution(weights: pd.DataFrame) -> pd.DataFrame:
    """Leave out bins that no series uses: they would fill half of the picture.

    Parameters
    ----------
    weights : DataFrame
        Columns series, low and high (exponents of ten of |w| at a bin's ends), share (a fraction).
    """
    used = weights[weights["share"] >= 0.0005]
    inside = (weights["low"] >= used["low"].min()) & (weights["high"] <= used["high"].max())
    shown: pd.DataFrame = weights[inside]
    return shown


def hardest(misclassified: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Choose the images that one variant gets wrong for most seeds.

    Parameters
    ----------
    misclassified : DataFrame
        Columns seed, index (of the test image), true, predicted, probability (of `predicted`).
    count : int
        How many to choose at most.

    Returns
    -------
    DataFrame
        Columns index, true, predicted (the most frequent wrong class, the smallest on a tie),
        probability (its mean over the seeds that predicted it) and seeds (how many were wrong);
        most seeds first, then the highest probability, then the lowest index.
    """
    rows = misclassified.sort_values(["index", "seed"])
    classes = rows.groupby(["index", "true", "predicted"], as_index=False).agg(
        votes=("seed", "size"), probability=("probability", "mean")
    )
    classes["seeds"] = classes.groupby("index")["votes"].transform("sum")
    wrong = classes.sort_values(["index", "votes", "predicted"], ascending=[True, False, True])
    first = wrong.drop_duplicates("index").drop(columns="votes")
    ranked = first.sort_values(["seeds", "probability", "index"], ascending=[False, False, True])
    return ranked.head(count).reset_index(drop=True)
