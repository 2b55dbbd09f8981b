"""Rates are compared with the best by validation accuracy at the end, on made-up searches."""

from collections.abc import Mapping

import pandas as pd
import pytest

from normlab.evidence import inference, rates

Found = dict[float, dict[str, object]]


def history(accuracies: Mapping[tuple[str, float], list[float]]) -> pd.DataFrame:
    """Two epochs of each trial, of which the first would choose otherwise."""
    rows = [
        ("rates_few", "gn", f"{arm}_{rate:g}", rate, seed, epoch, accuracy if epoch == 2 else rate)
        for (arm, rate), values in accuracies.items()
        for seed, accuracy in enumerate(values)
        for epoch in (1, 2)
    ]
    columns = ["study", "variant", "arm", "lr", "seed", "epoch", "val_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def found(accuracies: Mapping[tuple[str, float], list[float]], arm: str = "gn_2") -> Found:
    table = rates.table(history(accuracies))
    return {row["lr"]: row for row in table[table["arm"] == arm].to_dict("records")}  # type: ignore[misc]


SEARCH = {
    ("gn_2", 0.001): [0.90, 0.91, 0.92],
    ("gn_2", 0.01): [0.97, 0.98, 0.99],
    ("gn_2", 0.1): [0.96, 0.98, 0.99],
    ("gn_8", 0.001): [0.95, 0.96],
    ("gn_8", 0.01): [0.90, 0.91],
    ("gn_8", 0.1): [0.10, 0.11],
}


def test_the_best_mean_at_the_end_is_chosen_and_what_may_be_as_good_does_as_well() -> None:
    by_rate = found(SEARCH)
    assert [row["chosen"] for row in by_rate.values()] == [False, True, False]
    assert [row["as_well"] for row in by_rate.values()] == [False, True, True]
    assert by_rate[0.01]["mean"] == pytest.approx(0.98)
    assert by_rate[0.01]["std"] == pytest.approx(0.01)
    assert by_rate[0.01]["low"] == by_rate[0.01]["high"] == 0
    apart = inference.contrast([SEARCH["gn_2", 0.1], SEARCH["gn_2", 0.01]], [1, -1])
    assert (by_rate[0.1]["low"], by_rate[0.1]["high"]) == inference.interval(apart, 0.95)


def test_each_arm_has_its_own_best_and_the_studies_that_use_them_are_told() -> None:
    table = rates.table(history(SEARCH))
    assert table["arm"].tolist() == ["gn_2"] * 3 + ["gn_8"] * 3
    assert rates.chosen(table) == {("tuned_few", "gn_2"): 0.01, ("tuned_few", "gn_8"): 0.001}


def test_of_rates_that_do_equally_well_the_lowest_is_chosen() -> None:
    values = [0.5, 0.75]
    by_rate = found({("gn_2", rate): values for rate in (0.1, 0.01, 0.02)})
    assert [rate for rate, row in by_rate.items() if row["chosen"]] == [0.01]
    assert all(row["as_well"] for row in by_rate.values())


def test_a_search_on_one_seed_shows_nothing_and_is_refused() -> None:
    with pytest.raises(ValueError, match="got one of 1 seed, allowed: 2 or more"):
        rates.table(history({("gn_2", 0.1): [0.9], ("gn_2", 0.2): [0.8]}))
