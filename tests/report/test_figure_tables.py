"""The small tables that figures and charts draw."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.report import figure_tables

SUMMARY = pd.DataFrame(
    [
        ("s", "gn", 2, np.nan, "Two", "accuracy", 0.97, 0.95, 1.02),
        ("s", "gn", 4, np.nan, "Four", "accuracy", 0.1, -0.3, 0.5),
        ("s", "ln", np.nan, "channel", "Layer norm", "accuracy", 0.9, np.nan, np.nan),
        ("s", "ln", np.nan, "channel", "Layer norm", "loss", 0.3, 0.2, 0.4),
    ],
    columns=[
        *("study", "variant", "gn_groups", "ln_affine", "label", "measure"),
        *("mean", "low", "high"),
    ],
)
TRIALS = pd.DataFrame(
    [
        ("s", "ln", np.nan, "channel", 0, 0.9),
        ("s", "gn", 4.0, np.nan, 0, 0.1),
        ("s", "gn", 2.0, np.nan, 0, 0.96),
        ("s", "gn", 2.0, np.nan, 5, 0.98),
    ],
    columns=["study", "variant", "gn_groups", "ln_affine", "seed", "accuracy"],
)


def test_rows_are_named_by_all_that_tells_arms_apart() -> None:
    named = figure_tables.named(TRIALS, SUMMARY)
    assert named["series"].tolist() == ["Layer norm", "Four", "Two", "Two"]
    assert named.drop(columns="series").equals(TRIALS)


def test_means_stand_in_the_order_of_the_summary_with_their_trials_beside_them() -> None:
    named = figure_tables.named(TRIALS, SUMMARY)
    points, means = figure_tables.accuracies(named, SUMMARY, "accuracy")
    assert means["series"].tolist() == ["Two", "Four", "Layer norm"]
    assert means["at"].tolist() == [0, 1, 2]
    assert points["accuracy"].tolist() == TRIALS["accuracy"].tolist()
    beside = means.set_index("series")["at"][points["series"]].to_numpy() - points["at"]
    assert ((beside > 0.1) & (beside < 0.4)).all()
    assert points["at"].is_unique


def test_intervals_of_accuracies_end_where_accuracies_do() -> None:
    cut = figure_tables.bounded(SUMMARY)
    assert cut["low"].tolist()[:2] == [0.95, 0]
    assert cut["high"].tolist()[:2] == [1, 0.5]
    assert math.isnan(cut["low"].iloc[2])
    wide = SUMMARY.assign(measure="loss", low=-2.0, high=2.0)
    assert figure_tables.bounded(wide).equals(wide)


def test_only_trials_of_the_arms_shown_are_placed() -> None:
    named = figure_tables.named(TRIALS, SUMMARY)
    points, means = figure_tables.accuracies(named, SUMMARY.head(1), "accuracy")
    assert set(points["series"]) == set(means["series"]) == {"Two"}


def curves(epochs: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (series, seed, epoch, 0.5 + 0.1 * seed)
            for series in ("b", "a", "c")
            for seed in range(3)
            for epoch in range(1, epochs + 1)
        ],
        columns=["series", "seed", "epoch", "accuracy"],
    )


def test_seeds_are_summed_up_by_series_and_epoch() -> None:
    found = figure_tables.spread(curves(2), "accuracy")
    assert found["series"].tolist() == ["b", "b", "a", "a", "c", "c"]
    assert found["at"].tolist() == found["epoch"].tolist() == [1, 2] * 3
    np.testing.assert_allclose(found[["mean", "low", "high"]], [[0.6, 0.5, 0.7]] * 6)


def test_the_series_of_a_single_epoch_stand_side_by_side() -> None:
    found = figure_tables.spread(curves(1), "accuracy")
    assert found["at"].is_monotonic_increasing
    assert found["at"].is_unique
    assert found["at"].mean() == pytest.approx(1)
    assert found["at"].between(0.7, 1.3).all()


def test_a_log_axis_shows_losses_and_error_rates_above_a_floor() -> None:
    table = pd.DataFrame({"series": "a", "mean": [1.0, 0.25], "low": [0.0, np.nan], "high": 0.5})
    losses = figure_tables.on_log_axis(table, "loss")
    assert losses["mean"].tolist() == [1, 0.25]
    assert losses["low"].iloc[0] == 1e-4
    errors = figure_tables.on_log_axis(table, "accuracy")
    assert errors["mean"].tolist() == [1e-4, 0.75]
    assert math.isnan(errors["low"].iloc[1])
    assert list(errors) == ["mean", "low", "high"]


def test_each_series_ends_with_its_own_last_epoch() -> None:
    table = curves(3).query("series != 'a' or epoch < 3")
    last = figure_tables.after_last_epoch(table)
    assert last.groupby("series")["epoch"].unique().explode().to_dict() == {"a": 2, "b": 3, "c": 3}
    assert len(last) == 9


def test_sizes_keep_their_places_on_a_log_axis() -> None:
    rows = [(n, s, "accuracy", 0.9, 0.8, 0.95) for n in ("a", "b") for s in (2, 128)]
    columns = ["label", "batch_size", "measure", "mean", "low", "high"]
    found = figure_tables.by_size(pd.DataFrame(rows, columns=columns), "accuracy", "batch_size")
    assert found["size"].tolist() == [2, 128, 2, 128]
    assert (found["at"] / found["size"]).tolist() == pytest.approx(
        [1.05**-0.5] * 2 + [1.05**0.5] * 2, rel=1e-3
    )


def test_bins_that_no_series_uses_are_left_out_at_the_ends_alone() -> None:
    shares = [0, 0.0001, 0.5, 0, 0.4, 0]
    table = pd.DataFrame({"series": "a", "low": range(6), "share": shares})
    found = figure_tables.distribution(table.assign(high=table["low"] + 1))
    assert found["low"].tolist() == [2, 3, 4]


WRONG = pd.DataFrame(
    [
        (0, 50, 4, 9, 0.90),  # wrong for one seed: behind all others, however sure
        (0, 40, 7, 2, 0.60),  # two seeds, two digits: a tie, so the smaller one
        (1, 40, 7, 1, 0.80),
        (0, 30, 3, 5, 0.70),  # two seeds, mean 0.8: ties with 40 and has the lower index
        (1, 30, 3, 5, 0.90),
        (0, 20, 9, 4, 0.30),  # three seeds, the most frequent digit counts
        (1, 20, 9, 7, 0.99),
        (2, 20, 9, 4, 0.50),
    ],
    columns=["seed", "index", "true", "predicted", "probability"],
)
CHOSEN = pd.DataFrame(
    [(20, 9, 4, 0.4, 3), (30, 3, 5, 0.8, 2), (40, 7, 1, 0.8, 2), (50, 4, 9, 0.9, 1)],
    columns=["index", "true", "predicted", "probability", "seeds"],
)


@settings(max_examples=30)
@given(st.permutations(range(len(WRONG))))
def test_hardest_orders_by_seeds_probability_and_index(order: list[int]) -> None:
    pd.testing.assert_frame_equal(figure_tables.hardest(WRONG.iloc[order]), CHOSEN)


def test_hardest_takes_no_more_than_asked() -> None:
    assert figure_tables.hardest(WRONG, 2)["index"].tolist() == [20, 30]
    many = pd.concat([WRONG.assign(index=WRONG["index"] + 100 * i) for i in range(5)])
    assert len(figure_tables.hardest(many)) == 10
    assert figure_tables.hardest(WRONG.head(0)).empty
