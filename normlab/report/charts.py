"""The charts of the page, by Altair, from the tables that `figure_tables` prepares.

A chart is a Vega-Lite specification and drawn twice: as a picture when the page is made, and in the
reader's browser, where it answers to the pointer and to its switches. Text, axes and grid take the
page's own colour and series are named by CSS variables, so that a page in light or dark needs no
second drawing.

Accuracy is drawn on a log scale of the error, as in `figures`, and carried in percent.
"""

import json
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from normlab import formatting as fmt
from normlab.report import figure_tables
from normlab.report.looks import Series

Spec = dict[str, Any]

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
WIDTH, HEIGHT = 440, 250  # of the picture, in pixels: two fit side by side
ROUND = [float(f"{step}e{power}") for power in range(-4, 3) for step in (1, 2, 5)]


@alt.theme.register("normlab", enable=True)
def theme() -> Any:
    """Give every chart the page's look, and as much width as the page has for it."""
    return {
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 4,
        "background": None,
        "config": {
            "aria": False,  # each figure is labelled as a whole, with its numbers in a table
            "font": "Arial, Liberation Sans, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "domainColor": "currentColor",
                "domainOpacity": 0.4,
                "gridColor": "currentColor",
                "gridOpacity": 0.12,
                "labelColor": "currentColor",
                "labelFontSize": 11,
                "labelPadding": 6,
                "ticks": False,
                "title": None,
                "titleColor": "currentColor",
                "titleFontSize": 11,
                "titleFontWeight": "normal",
            },
            "axisX": {"grid": False},
        },
    }


def curves(table: pd.DataFrame, series: Sequence[Series], measure: str) -> Spec:
    """Draw a measure, "accuracy" or "loss", over epochs: the seeds' mean and their range.

    `table` is as `figure_tables.spread` gives it.
    """
    rows, span = _rows(table, measure), [table["epoch"].min() - 0.3, table["epoch"].max() + 0.3]
    base = _base(rows, series, _x(span, alt.Axis(title="epoch", tickMinStep=1, format="d")))
    y = _y(measure, rows)
    # An area has no width where there is but one epoch.
    one = table["epoch"].min() == table["epoch"].max()
    reach = base.mark_rule(opacity=0.4) if one else base.mark_area(opacity=0.16)
    told = ["series:N", "epoch:Q", *_numbers(measure, mean="mean", low="lowest", high="highest")]
    return _spec(
        series,
        reach.encode(y=y("low"), y2="y_high:Q"),
        base.mark_line(strokeWidth=1.8).encode(y=y("mean"), strokeDash=_dash(series)),
        _points(base, series, y("mean"), told, size=34),
    )


def dots(
    points: pd.DataFrame, means: pd.DataFrame, series: Sequence[Series], ticks: Sequence[str]
) -> Spec:
    """Draw each trial's accuracy as a point beside the mean and its interval.

    `points` and `means` are as `figure_tables.accuracies` gives them. `ticks` name the places
    0, 1, 2, …, in lines the shorter the more there are.
    """
    room = max(6, 60 // len(ticks) - 4)
    lines = [[line for part in t.split("\n") for line in textwrap.wrap(part, room)] for t in ticks]
    x = _x([-0.5, len(ticks) - 0.5], _named_axis(lines, labelOverlap=False))
    trials, rows = _rows(points, "accuracy"), _estimates(means)
    y = _y("accuracy", trials, rows)
    told = ["series:N", "seed:Q", *_numbers("accuracy", accuracy="accuracy")]
    small = _points(_base(trials, series, x), series, y("accuracy"), told, size=22, opacity=0.5)
    return _spec(series, small, *_intervals(_base(rows, series, x), series, y, ["series:N"]))


def by_size(means: pd.DataFrame, series: Sequence[Series], title: str) -> Spec:
    """Draw accuracy against a size on a log axis: of each series the means and intervals.

    `means` is as `figure_tables.by_size` gives it, `title` of the axis.
    """
    sizes = sorted({int(size) for size in means["size"]})
    axis = alt.Axis(title=title, values=sizes, format="d")
    x = _x([sizes[0] / 1.2, sizes[-1] * 1.2], axis, type="log", base=2)
    rows = _estimates(means)
    base, y = _base(rows, series, x), _y("accuracy", rows)
    line = base.mark_line(strokeWidth=1.8).encode(y=y("mean"), strokeDash=_dash(series))
    told = ["series:N", alt.Tooltip("size:Q", title=title)]
    return _spec(series, line, *_intervals(base, series, y, told))


def weights(table: pd.DataFrame, series: Sequence[Series]) -> Spec:
    """Draw how absolute weights are distributed, a row for each series, all on one scale.

    `table` is as `figure_tables.distribution` gives it; the first series is the lowest row.
    """
    labels = [one.label for one in series]
    left, right = float(table["low"].min()), float(table["high"].max())
    row = table["series"].map(labels.index)
    rows = table[["series"]].assign(
        row=row,
        at=(table["low"] + table["high"]) / 2,
        top=(row + 0.9 * table["share"] / table["share"].max()).round(4),
        share=(100 * table["share"]).round(3),
    )
    exponents = range(math.ceil(left), math.floor(right) + 1)
    powers = {exponent: fmt.power_of_ten(10.0**exponent) for exponent in exponents}
    across = _named_axis(powers, title="absolute weight, log scale", grid=True)
    up = _named_axis(labels, labelBaseline="line-bottom", grid=False)
    y = alt.Y("top:Q", scale=alt.Scale(domain=[0, len(labels)], nice=False), axis=up)
    base = _base(rows, series, _x([left, right], across)).encode(y=y)
    line = alt.OverlayMarkDef(strokeWidth=1.5)
    hills = base.mark_area(interpolate="monotone", fillOpacity=0.28, line=line)
    about = alt.Tooltip("weight:Q", title="|weight| about", format=".1~e")
    share = alt.Tooltip("share:Q", title="share of weights, %", format=".2f")
    # Points without ink, for the pointer to find.
    found = base.mark_point(filled=True, size=80, opacity=0).encode(
        tooltip=["series:N", about, share]
    )
    found = found.transform_calculate(weight="pow(10, datum.at)")
    return _spec(series, hills.encode(y2="row:Q"), found)


def parameters(table: pd.DataFrame, series: Sequence[Series]) -> Spec:
    """Draw the number of parameters of every layer, a bar for each series.

    `table` has columns series, layer, parameters; every series has the same layers, in order.
    """
    layers = table["layer"].unique().tolist()
    axis = alt.Axis(format=",d", tickCount=5, grid=True)
    scale = alt.Scale(domain=[0, int(table["parameters"].max())])
    count = alt.X("parameters:Q", scale=scale, axis=axis)
    bars = (
        _base(table[["series", "layer", "parameters"]], series, count)
        .mark_bar()
        .encode(
            y=alt.Y("layer:N", sort=layers, axis=alt.Axis(domain=False)),
            yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=[one.label for one in series])),
            tooltip=["series:N", "layer:N", alt.Tooltip("parameters:Q", format=",d")],
        )
    )
    return _spec(series, bars) | {"height": (3 + 7 * len(series)) * len(layers)}


def picture(spec: Spec) -> str:
    """Draw a specification as an SVG element that a page can hold, beside others."""
    drawn = vl_convert.vegalite_to_svg(spec | {"width": WIDTH}, vl_version=VEGA_LITE)
    # The page sets the font; aria and empty paths are of no use in a picture labelled as a whole.
    drawn = re.sub(r' (?:font-family|aria-\w+|role|xmlns:xlink|version)="[^"]*"', "", drawn)
    drawn = re.sub(r'<path class="(?:fore|back)ground"[^>]*/>', "", drawn)
    drawn = re.sub(r"<[^>]+>", lambda tag: _rounded(tag[0]), drawn)
    return drawn.replace('<svg class="marks"', "<svg")


def _rounded(tag: str) -> str:
    return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", tag)


def _rows(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Round what the tooltips tell, accuracies in percent; add what is drawn of it, as y_…."""
    scale, digits = (100, 3) if measure == "accuracy" else (1, 5)
    table = table.reset_index(drop=True)
    drawn = (scale * figure_tables.on_log_axis(table, measure)).round(5)
    told = (scale * table[drawn.columns].astype(float)).round(digits)
    return table.assign(**told).join(drawn.add_prefix("y_"))


def _estimates(means: pd.DataFrame) -> pd.DataFrame:
    """Write the intervals out, since what is known without one has no ends to format."""
    rows = _rows(means, "accuracy")
    ends = zip(rows["low"], rows["high"], strict=True)
    return rows.assign(ends=[fmt.interval(*pair, "{:.2f}".format) for pair in ends])


def _spec(series: Sequence[Series], *layers: alt.Chart) -> Spec:
    """Lay charts over each other, with a switch for each series that says whether it shows."""
    switches = [alt.param(name=f"show_{i}", value=True) for i, _ in enumerate(series)]
    return alt.layer(*layers).add_params(*switches).to_dict()


def _base(rows: pd.DataFrame, series: Sequence[Series], x: alt.X) -> alt.Chart:
    """Start a chart of the rows whose series is switched on, in its colour."""
    labels = json.dumps([one.label for one in series])
    shown = ", ".join(f"show_{i}" for i, _ in enumerate(series))
    switch = f"[{shown}][indexof({labels}, datum.series)]"
    colour = alt.Color("series:N", **_look(series, [one.colour for one in series]))
    return alt.Chart(rows).transform_filter(switch).encode(x=x, color=colour)


def _look(series: Sequence[Series], values: list[Any]) -> dict[str, Any]:
    labels = [one.label for one in series]
    return {"scale": alt.Scale(domain=labels, range=values), "legend": None}


def _dash(series: Sequence[Series]) -> alt.StrokeDash:
    return alt.StrokeDash("series:N", **_look(series, [one.dash for one in series]))


def _points(
    base: alt.Chart,
    series: Sequence[Series],
    y: alt.Y,
    told: list[Any],
    size: int,
    opacity: float = 1,
) -> alt.Chart:
    shape = alt.Shape("series:N", **_look(series, [one.marker for one in series]))
    points: alt.Chart = base.mark_point(filled=True, size=size, opacity=opacity)
    return points.encode(y=y, shape=shape, tooltip=told)


def _intervals(
    base: alt.Chart, series: Sequence[Series], y: Callable[[str], alt.Y], told: list[Any]
) -> list[alt.Chart]:
    """Make the layers of means and their intervals."""
    interval = alt.Tooltip("ends:N", title="95 % interval")
    told = [*told, *_numbers("accuracy", mean="mean"), interval]
    rule = base.mark_rule(strokeWidth=2).encode(y=y("low"), y2="y_high:Q")
    return [rule, _points(base, series, y("mean"), told, size=90)]


def _numbers(measure: str, **titles: str) -> list[alt.Tooltip]:
    unit, form = (", %", ".2f") if measure == "accuracy" else ("", ".4f")
    return [
        alt.Tooltip(f"{name}:Q", title=title + unit, format=form) for name, title in titles.items()
    ]


def _x(domain: list[float], axis: alt.Axis, **scale: Any) -> alt.X:
    return alt.X("at:Q", scale=alt.Scale(domain=domain, nice=False, **scale), axis=axis)


def _named_axis(names: Sequence[Any] | dict[int, str], **axis: Any) -> alt.Axis:
    """Make an axis that has names in the place of numbers: of 0, 1, 2, … unless it is said."""
    values = list(names) if isinstance(names, dict) else list(range(len(names)))
    return alt.Axis(values=values, labelExpr=f"{json.dumps(names)}[datum.value]", **axis)


def _y(measure: str, *tables: pd.DataFrame) -> Callable[[str], alt.Y]:
    """Make the y channel of a column, on a log scale around all that is drawn of the tables."""
    accuracy = measure == "accuracy"
    values = pd.concat([table.filter(like="y_").melt()["value"] for table in tables])
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.06, 1.02)
    span = [low / margin, min(high * margin, 100 if accuracy else math.inf)]
    scale = alt.Scale(type="log", domain=span, nice=False, reverse=accuracy)
    text = "format(100 - datum.value, '.6~g') + ' %'" if accuracy else "format(datum.value, '.3~g')"
    # Vega's own ticks are fine where the axis is short, and too many where it is long.
    marks = {"tickCount": 5} if high < 6 * low else {"values": ROUND}
    axis = alt.Axis(labelExpr=text, **marks)
    return lambda column: alt.Y(f"y_{column}:Q", scale=scale, axis=axis)
