"""Recipes are compared with the first by validation accuracy, all variants together."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from normlab.evidence import inference, recipes

MATTERS = 0.001
FIRST = {"bn_l1": [0.990, 0.991, 0.992], "gn": [0.993, 0.994, 0.992]}
Found = Mapping[str, Mapping[str, Sequence[float]]]


def history(found: Found) -> pd.DataFrame:
    """Two epochs of each trial, of which the first would choose otherwise."""
    rows = [
        (variant, f"{variant}_{recipe}", seed, epoch, accuracy if epoch == 2 else 1 - accuracy)
        for recipe, by_variant in found.items()
        for variant, values in by_variant.items()
        for seed, accuracy in enumerate(values)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["variant", "arm", "seed", "epoch", "val_accuracy"])


def better(by: float, variants: Sequence[str] = ("bn_l1", "gn")) -> dict[str, list[float]]:
    return {v: [one + by * (v in variants) for one in values] for v, values in FIRST.items()}


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ({"worse": better(-0.01)}, "first"),
        ({"shown_to_matter": better(0.005)}, "shown_to_matter"),
        ({"shown_but_too_little": better(0.002)}, "first"),
        ({"for_one_alone": better(0.004, ["gn"])}, "first"),
        ({"some": better(0.004), "more": better(0.006)}, "more"),
        ({"more": better(0.006), "some": better(0.004)}, "more"),
    ],
)
def test_the_first_stands_unless_another_is_shown_to_do_better_by_what_matters(
    others: Found, chosen: str
) -> None:
    table = recipes.table(history({"first": FIRST, **others}), MATTERS)
    assert table["recipe"].tolist() == ["first", *others]
    assert table.loc[table["chosen"], "recipe"].tolist() == [chosen]


def test_each_variant_counts_the_same_however_many_seeds_it_has() -> None:
    other = {"bn_l1": [0.98, 0.97], "gn": [0.99, 0.99, 0.98, 0.96]}
    table = recipes.table(history({"first": FIRST, "other": other}), MATTERS).set_index("recipe")
    row = table.astype(object).to_dict("index")["other"]
    assert row["bn_l1"] == pytest.approx(0.975)
    assert row["gn"] == pytest.approx(0.98)
    assert row["mean"] == pytest.approx(0.9775)
    assert row["seeds"] == 2
    apart = inference.contrast([*other.values(), *FIRST.values()], [0.5, 0.5, -0.5, -0.5])
    assert (row["low"], row["high"]) == inference.interval(apart, 0.95)
    difference = table["mean"].diff().iloc[1]
    assert row["low"] < difference < row["high"]
    assert table[["low", "high"]].iloc[0].tolist() == [0, 0]


def test_each_recipe_is_tried_with_all_variants() -> None:
    with pytest.raises(ValueError, match="got none of bn_l1_other, allowed: each recipe"):
        recipes.table(history({"first": FIRST, "other": {"gn": FIRST["gn"]}}), MATTERS)
    with pytest.raises(ValueError, match="got no rows"):
        recipes.table(history({}), MATTERS)


def test_one_seed_shows_nothing_and_is_refused() -> None:
    one = {variant: values[:1] for variant, values in FIRST.items()}
    with pytest.raises(ValueError, match="got one of 1 seed, allowed: 2 or more"):
        recipes.table(history({"first": one, "other": one}), MATTERS)
