"""Which learning rate does best on validation images, and which do as well."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from normlab.evidence import inference

SEARCH, TUNED = "rates_", "tuned_"
"""What the names of studies begin with that choose rates, and of those that are given them."""
LEVEL = 0.95
"""Of each interval by itself: they describe a search, and decide no claim."""


def table(history: pd.DataFrame) -> pd.DataFrame:
    """Compare each arm's learning rates by the accuracy on validation images at the end.

    Parameters
    ----------
    history
        Of a study that goes over `lr` last: columns study, variant, arm, lr (the arm's), seed,
        epoch, val_accuracy; the epochs of each trial in order, of each rate two seeds or more.

    Returns
    -------
    DataFrame
        A row for each arm and rate, in order: study, variant, arm (its name without the rate), lr,
        seeds, mean and std of the accuracy, low and high of its difference from the best mean
        (Welch's interval at 95 %; 0 for the best itself), as_well (whether the rate is not shown to
        do worse: the interval reaches 0) and chosen (the best mean; of equal ones the lowest rate).
    """
    final = history.groupby(["arm", "seed"], sort=False).tail(1)
    names = [
        arm.removesuffix(f"_{rate:g}") for arm, rate in zip(final["arm"], final["lr"], strict=True)
    ]
    groups = final.assign(arm=names).groupby("arm", sort=False)
    return pd.DataFrame([row for _, own in groups for row in _rates(own)])


def chosen(found: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Give the rate of each study and arm that is given one, from what `table` found."""
    rows = found[found["chosen"]]
    names = [study.replace(SEARCH, TUNED, 1) for study in rows["study"]]
    return dict(zip(zip(names, rows["arm"], strict=True), rows["lr"].tolist(), strict=True))


def _rates(own: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rates of one arm, in order."""
    first, rates = own.iloc[0], own["lr"].unique().tolist()
    values = [own.loc[own["lr"] == rate, "val_accuracy"].to_numpy(float) for rate in rates]
    alone = [inference.contrast([one], [1]) for one in values]
    means = [one.effect for one in alone]
    best = min(range(len(rates)), key=lambda place: (-means[place], rates[place]))
    for place, rate in enumerate(rates):
        apart = inference.contrast([values[place], values[best]], [1, -1])
        low, high = (0.0, 0.0) if place == best else inference.interval(apart, LEVEL)
        yield {
            "study": first["study"],
            "variant": first["variant"],
            "arm": first["arm"],
            "lr": rate,
            "seeds": values[place].size,
            "mean": means[place],
            "std": math.sqrt(alone[place].arms[0].spread),
            "low": low,
            "high": high,
            "as_well": high >= 0,
            "chosen": place == best,
        }
