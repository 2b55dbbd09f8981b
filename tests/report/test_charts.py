"""The page's charts: what they carry, and the pictures that stand in for them."""

import json
import re
from typing import Any

import pandas as pd
import pytest
import vl_convert

from normlab.report import charts, figure_tables, looks

AB = looks.named(["First", "Second"])


def curves(epochs: int = 3, **values: float) -> pd.DataFrame:
    numbers = {"mean": 0.99, "low": 0.98, "high": 0.995} | values
    rows = [
        {"series": one.label, "epoch": epoch, "at": epoch} | numbers
        for one in AB
        for epoch in range(1, epochs + 1)
    ]
    return pd.DataFrame(rows)


def means(**values: Any) -> pd.DataFrame:
    numbers = {"mean": 0.99, "low": 0.98, "high": 0.995} | values
    rows = [{"series": one.label, "at": at} | numbers for at, one in enumerate(AB)]
    return pd.DataFrame(rows)


POINTS = means()[["series", "at"]].assign(seed=0, accuracy=0.985)
WEIGHTS = pd.DataFrame(
    [(one.label, low, low + 1, 0.5) for one in AB for low in (-2, -1)],
    columns=["series", "low", "high", "share"],
)
PARAMETERS = pd.DataFrame(
    [(one.label, layer, 10) for one in AB for layer in ("conv1", "norm1")],
    columns=["series", "layer", "parameters"],
)
CHARTS = {
    "accuracy": charts.curves(curves(), AB, "accuracy"),
    "loss": charts.curves(curves(), AB, "loss"),
    "one epoch": charts.curves(curves(epochs=1), AB, "accuracy"),
    "dots": charts.dots(POINTS, means(), AB, ["First", "Second"]),
    "sizes": charts.by_size(means().assign(size=[2, 128]), AB, "images in a batch"),
    "weights": charts.weights(WEIGHTS, AB),
    "parameters": charts.parameters(PARAMETERS, AB),
}


def rows(spec: charts.Spec) -> list[dict[str, Any]]:
    return [row for values in spec["datasets"].values() for row in values]


@pytest.mark.parametrize("name", CHARTS)
def test_a_picture_shows_every_series_and_no_script(name: str) -> None:
    picture = charts.picture(CHARTS[name])
    assert all(f"--series-{i}" in picture for i in (0, 1))
    assert picture.startswith("<svg")
    assert "<script" not in picture
    assert "NaN" not in picture


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_plain_data_with_a_switch_for_every_series(name: str) -> None:
    spec = CHARTS[name]
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
    assert spec["params"] == [{"name": f"show_{i}", "value": True} for i in (0, 1)]
    assert spec["width"] == "container"


@pytest.mark.parametrize("name", CHARTS)
def test_a_switched_off_series_is_not_drawn(name: str) -> None:
    off = [{"name": "show_0", "value": True}, {"name": "show_1", "value": False}]
    picture = charts.picture(CHARTS[name] | {"params": off})
    assert "--series-0" in picture
    assert "--series-1" not in picture


def test_the_library_on_the_page_draws_what_altair_writes() -> None:
    assert charts.VEGA_LITE in vl_convert.get_vegalite_versions()
    assert f"/v{charts.VEGA_LITE}." in CHARTS["dots"]["$schema"]


def test_a_chart_is_the_same_every_time_it_is_made() -> None:
    again = charts.dots(POINTS, means(), AB, ["First", "Second"])
    assert json.dumps(again) == json.dumps(CHARTS["dots"])


def test_accuracies_are_told_in_percent_and_drawn_as_errors() -> None:
    (row,) = {(r["mean"], r["low"], r["y_mean"], r["y_low"]) for r in rows(CHARTS["accuracy"])}
    assert row == (99, 98, pytest.approx(1), pytest.approx(2))
    assert {(r["mean"], r["y_mean"]) for r in rows(CHARTS["loss"])} == {(0.99, 0.99)}


def test_each_mean_is_drawn_once() -> None:
    """Tables that were put together have rows of the same number."""
    both = pd.concat([means(), means(low=None, high=None)])
    spec = charts.dots(pd.concat([POINTS, POINTS]), both, AB, ["First", "Second"])
    assert len(rows(spec)) == 4 + 4


def test_what_has_no_interval_is_told_without_one() -> None:
    spec = charts.dots(POINTS, means(low=float("nan"), high=float("nan")), AB, ["A", "B"])
    ends = [row["ends"] for row in rows(spec) if "ends" in row]
    assert ends == ["—", "—"]
    assert "NaN" not in charts.picture(spec)


def test_the_range_of_a_single_epoch_is_a_line() -> None:
    marks = [layer["mark"]["type"] for layer in CHARTS["one epoch"]["layer"]]
    assert marks == ["rule", "line", "point"]
    assert CHARTS["accuracy"]["layer"][0]["mark"]["type"] == "area"


def test_losses_are_labelled_to_their_digits() -> None:
    table = curves().assign(mean=[0.06, 0.03, 0.015] * 2, low=0.015, high=0.06)
    picture = charts.picture(charts.curves(table, AB, "loss"))
    assert {"0.02", "0.04"} <= texts(picture)


@pytest.mark.parametrize(
    "accuracies", [[0, 0.4], [0.5, 1], [0.1, 0.9935], [0.9912, 0.9913], [1, 1]]
)
def test_accuracies_are_labelled_within_0_and_100_percent(accuracies: list[float]) -> None:
    low, high = accuracies
    table = means(mean=(low + high) / 2, low=low, high=high)
    picture = charts.picture(charts.dots(POINTS.assign(accuracy=low), table, AB, ["A", "B"]))
    labels = {float(t.removesuffix(" %")) for t in texts(picture) if t.endswith("%")}
    assert labels
    assert all(0 <= label <= 100 for label in labels)


def texts(picture: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", picture))


def test_many_names_on_an_axis_are_broken_into_lines() -> None:
    names = [f"{n} groups" for n in range(6)]
    table = pd.DataFrame({"series": names, "at": range(6), "mean": 0.9, "low": 0.8, "high": 0.95})
    points = table[["series", "at"]].assign(seed=0, accuracy=0.9)
    picture = charts.picture(charts.dots(points, table, looks.named(names), names))
    assert "groups" in " ".join(re.findall(r"<tspan[^>]*>([^<]*)</tspan>", picture)).split()


def test_tables_of_the_figures_are_taken_as_they_come() -> None:
    trials = pd.DataFrame(
        [("First", seed, epoch, 0.9 + 0.01 * seed) for seed in (0, 1) for epoch in (1, 2)],
        columns=["series", "seed", "epoch", "accuracy"],
    )
    spec = charts.curves(figure_tables.spread(trials, "accuracy"), AB[:1], "accuracy")
    assert [row["high"] for row in rows(spec)] == [91, 91]
