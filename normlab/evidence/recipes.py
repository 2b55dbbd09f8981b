"""Whether another recipe does better on validation images than the pipeline's own."""

import pandas as pd

from normlab.evidence import inference

STUDY = "recipes"
"""The study whose arms are named for a variant and a recipe; those of the pipeline come first."""
LEVEL = 0.95
"""Of each interval by itself: they describe a search, and decide no claim."""


def table(history: pd.DataFrame, matters: float) -> pd.DataFrame:
    """Compare recipes by the accuracy on validation images at the end, all variants together.

    Each variant counts the same. The first recipe stands unless others are shown to do better by
    more than `matters`; then the best mean of those is chosen.

    Parameters
    ----------
    history
        Of the study: columns variant, arm (`<variant>_<recipe>`, each recipe with all variants),
        seed, epoch, val_accuracy; the epochs of each trial in order, of each arm two seeds or more.
    matters
        The smallest difference that does, a fraction of the images.

    Returns
    -------
    DataFrame
        A row for each recipe, in order: recipe, seeds (of each variant), mean of the accuracy, low
        and high of its difference from the first's (Welch's interval at 95 %; 0 for the first
        itself), chosen, and a column for each variant, its own mean.

    Raises
    ------
    ValueError
        If there is no trial, an arm has fewer than two seeds or what is not finite, or a recipe was
        not tried with all variants.
    """
    if history.empty:
        raise ValueError("got no rows, allowed: one or more")
    final = history.groupby(["arm", "seed"], sort=False).tail(1)
    pairs = zip(final["variant"], final["arm"], strict=True)
    final = final.assign(recipe=[arm.removeprefix(f"{variant}_") for variant, arm in pairs])
    names, variants = (final[key].unique().tolist() for key in ("recipe", "variant"))
    by_arm = {
        key: own["val_accuracy"].to_numpy(float)
        for key, own in final.groupby(["recipe", "variant"], sort=False)
    }
    if missing := [f"{v}_{name}" for name in names for v in variants if (name, v) not in by_arm]:
        raise ValueError(f"arm: got none of {', '.join(missing)}, allowed: each recipe and variant")
    share = 1 / len(variants)
    rows = []
    for name in names:
        values, first = ([by_arm[one, v] for v in variants] for one in (name, names[0]))
        weights = [share] * len(variants) + [-share] * len(variants)
        apart = inference.contrast([*values, *first], weights)
        own = [inference.contrast([one], [1]).effect for one in values]
        low, high = (0.0, 0.0) if name == names[0] else inference.interval(apart, LEVEL)
        rows.append(
            {
                "recipe": name,
                "seeds": min(one.size for one in values),
                "mean": inference.contrast(values, [share] * len(variants)).effect,
                "low": low,
                "high": high,
                **dict(zip(variants, own, strict=True)),
            }
        )
    better = [row for row in rows if row["low"] > matters]
    best = max(better or rows[:1], key=lambda row: row["mean"])
    found = pd.DataFrame(rows)
    found.insert(5, "chosen", [row is best for row in rows])
    return found
