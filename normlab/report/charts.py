"""The charts of the report as Vega-Lite specifications, from tables alone.

A specification is a plain dict. The same one is drawn twice: as a picture when the page is made,
and in the reader's browser, where it answers to the pointer and to its switches. Text, axes and
grid take the page's own colour and series are named by CSS variables, so that a page in light or
dark needs no second drawing. Every series has its own marker and dashes too.

Accuracy is drawn on a log scale of the error, as in `figures`, and carried in percent.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import vl_convert
from numpy.typing import NDArray

from normlab import formatting
from normlab.report import figures

Spec = dict[str, Any]

VEGA_LITE = "6.4"
WIDTH, HEIGHT = 440, 250  # of the picture, in pixels: two fit side by side
WEIGHT_ROW = 0.9  # of a row's height, taken by the largest share

# Okabe and Ito's colours, except where one stands less than 3:1 off its background.
LIGHT = (*figures.COLOURS[:3], "#B3578F", "#2C86BC", "#A87400")
DARK = ("#3B93D1", "#E8711A", "#1FAE85", *figures.COLOURS[3:6])
STEPS = 6  # of the ramp that orders a study's settings

# Shapes in a square from -1 to 1, in the order of `figures.MARKERS`, and dashes.
MARKERS = (
    "M-.9,0A.9,.9,0,1,1,.9,0A.9,.9,0,1,1,-.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.8H-1Z",
    "M0,-1.1L.9,0L0,1.1L-.9,0Z",
    "M0,1L1,-.8H-1Z",
    "M-.33,-1H.33V-.33H1V.33H.33V1H-.33V.33H-1V-.33H-.33Z",
)
DASHES = ([1, 0], [6, 3], [8, 3, 2, 3], [2, 2], [10, 3], [4, 2, 1, 2])

CONFIG: Spec = {
    "aria": False,  # each figure is labelled as a whole, with its numbers in a table
    "background": None,
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
}


class Series(NamedTuple):
    """What tells one series from the others: its name and its look."""

    label: str
    colour: str
    look: int
    """Position in `MARKERS` and `DASHES`."""

    @property
    def marker(self) -> str:
        """The shape of its points."""
        return MARKERS[self.look % len(MARKERS)]

    @property
    def dash(self) -> list[int]:
        """Lengths of its dashes and gaps."""
        return DASHES[self.look % len(DASHES)]


def named(labels: Mapping[str, str], first: int = 0) -> dict[str, Series]:
    """Give each key a series, the colours in order from the `first`."""
    return {
        key: Series(label, f"var(--series-{(first + i) % len(LIGHT)})", first + i)
        for i, (key, label) in enumerate(labels.items())
    }


def ordered(labels: Mapping[str, str]) -> dict[str, Series]:
    """Give each key a series, the colours in steps that show their order."""
    last = max(1, len(labels) - 1)
    return {
        key: Series(label, f"var(--ramp-{round(i * (STEPS - 1) / last)})", i)
        for i, (key, label) in enumerate(labels.items())
    }


def ramp() -> list[int]:
    """Percentages of the ramp's own colour in each step; the rest is the text's."""
    return [100 - round(i * 75 / (STEPS - 1)) for i in range(STEPS)]


def curves(table: pd.DataFrame, series: Mapping[str, Series], measure: str) -> Spec:
    """Draw a measure over epochs: of each series the seeds' mean and their range.

    Parameters
    ----------
    table : DataFrame
        Columns series, epoch (from 1), mean, low and high: percent, or nats for the loss.
    series : mapping
        A series for each value of the column, in order.
    measure : str
        "accuracy" or "loss".
    """
    rows = table.assign(series=[series[key].label for key in table["series"]])
    epochs = table["epoch"]
    x = {
        "field": "epoch",
        "type": "quantitative",
        "scale": {"domain": [int(epochs.min()) - 0.3, int(epochs.max()) + 0.3], "nice": False},
        "axis": {"title": "epoch", "grid": False, "tickMinStep": 1, "format": "d"},
    }
    looks = _looks(series.values())
    y = _y(table[["mean", "low", "high"]].to_numpy(), measure)
    band = {
        "mark": {"type": "area", "opacity": 0.16},
        "encoding": {"x": x, "y": y("low"), "y2": {"field": "y_high"}, "color": looks["color"]},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 1.8},
        "encoding": {"x": x, "y": y("mean"), **_without(looks, "shape")},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 34, "opacity": 1},
        "encoding": {
            "x": x,
            "y": y("mean"),
            **_without(looks, "strokeDash"),
            "tooltip": [
                {"field": "series", "title": "series"},
                {"field": "epoch", "title": "epoch"},
                *_numbers(measure, mean="mean", low="lowest", high="highest"),
            ],
        },
    }
    return _chart(
        [band, line, points],
        data={"values": _values(rows, measure)},
        transform=[_switch(series.values()), *_plotted(["mean", "low", "high"], measure)],
        params=_params(series.values()),
    )


def dots(
    points: pd.DataFrame,
    summary: pd.DataFrame,
    series: Mapping[str, Series],
    ticks: Sequence[str | list[str]],
    title: str | None = None,
) -> Spec:
    """Draw each trial's accuracy as a point beside the mean and its interval.

    Parameters
    ----------
    points : DataFrame
        Columns series, at (place on the axis), seed, accuracy (percent).
    summary : DataFrame
        Columns series, at, mean, low and high (percent; an interval may be NaN).
    series : mapping
        A series for each value of the column.
    ticks : sequence
        Labels of the places 0, 1, 2, …; a list takes a line for each of its entries.
    title : str or None
        Of the axis.
    """
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [-0.5, len(ticks) - 0.5], "nice": False},
        "axis": {
            "title": title,
            "grid": False,
            "values": list(range(len(ticks))),
            "labelExpr": f"{json.dumps(ticks)}[datum.value]",
            "labelOverlap": False,
        },
    }
    looks = _without(_looks(series.values()), "strokeDash")
    spread = summary[["mean", "low", "high"]].to_numpy()
    y = _y(np.append(points["accuracy"].to_numpy(), spread), "accuracy")
    shown = [
        frame.assign(series=[series[key].label for key in frame["series"]])
        for frame in (points, summary)
    ]
    trials = {
        "data": {"values": _values(shown[0], "accuracy")},
        "transform": [_switch(series.values()), *_plotted(["accuracy"], "accuracy")],
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.5},
        "encoding": {
            "x": x,
            "y": y("accuracy"),
            **looks,
            "tooltip": [
                {"field": "series", "title": "series"},
                {"field": "seed", "title": "seed"},
                *_numbers("accuracy", accuracy="accuracy"),
            ],
        },
    }
    means = {
        "data": {"values": _values(shown[1], "accuracy")},
        "transform": [_switch(series.values()), *_plotted(["mean", "low", "high"], "accuracy")],
        "layer": _interval(x, y, looks, "accuracy", [{"field": "series", "title": "series"}]),
    }
    return _chart([trials, means], params=_params(series.values()))


def by_size(summary: pd.DataFrame, series: Mapping[str, Series], title: str) -> Spec:
    """Draw accuracy against a size on a log axis: of each series the means and intervals.

    Parameters
    ----------
    summary : DataFrame
        Columns series, size, mean, low and high (percent; an interval may be NaN).
    series : mapping
        A series for each value of the column, in order.
    title : str
        Of the axis.
    """
    keys = list(series)
    apart = [1.05 ** (keys.index(key) - (len(keys) - 1) / 2) for key in summary["series"]]
    rows = summary.assign(
        series=[series[key].label for key in summary["series"]],
        at=(summary["size"] * apart).round(4),
    )
    sizes = sorted({int(size) for size in summary["size"]})
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {
            "type": "log",
            "base": 2,
            "domain": [sizes[0] / 1.2, sizes[-1] * 1.2],
            "nice": False,
        },
        "axis": {"title": title, "grid": False, "values": sizes, "format": "d"},
    }
    looks = _looks(series.values())
    y = _y(summary[["mean", "low", "high"]].to_numpy(), "accuracy")
    line = {
        "mark": {"type": "line", "strokeWidth": 1.8},
        "encoding": {"x": x, "y": y("mean"), **_without(looks, "shape")},
    }
    tooltip = [{"field": "series", "title": "series"}, {"field": "size", "title": title}]
    intervals = _interval(x, y, _without(looks, "strokeDash"), "accuracy", tooltip)
    return _chart(
        [line, *intervals],
        data={"values": _values(rows, "accuracy")},
        transform=[_switch(series.values()), *_plotted(["mean", "low", "high"], "accuracy")],
        params=_params(series.values()),
    )


def weights(table: pd.DataFrame, labels: Mapping[str, str], colour: str) -> Spec:
    """Draw how absolute weights are distributed, a row for each series, all on one scale.

    Parameters
    ----------
    table : DataFrame
        Columns series, low and high (exponents of ten of a bin of |w|), share (a fraction).
    labels : mapping
        The label of each series, from the bottom row to the top.
    colour : str
        Of all rows.
    """
    # Bins that no series uses would leave half of the picture empty.
    used = table.loc[table["share"] >= 0.0005]
    left, right = float(used["low"].min()), float(used["high"].max())
    inside = table[(table["low"] >= left) & (table["high"] <= right)]
    exponents = list(range(math.ceil(left), math.floor(right) + 1))
    order = list(labels)
    rows = [
        {
            "setting": labels[row["series"]],
            "row": order.index(row["series"]),
            "at": (row["low"] + row["high"]) / 2,
            "share": round(100 * row["share"], 3),
        }
        for row in inside.to_dict("records")
    ]
    stretch = WEIGHT_ROW / max(row["share"] for row in rows)
    powers = {n: formatting.power_of_ten(10.0**n) for n in exponents}
    x = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [left, right], "nice": False},
        "axis": {
            "title": "absolute weight, log scale",
            "values": exponents,
            "labelExpr": f"{json.dumps(powers)}[datum.value]",
        },
    }
    y = {
        "field": "top",
        "type": "quantitative",
        "scale": {"domain": [0, len(order)], "nice": False},
        "axis": {
            "grid": False,
            "values": list(range(len(order))),
            "labelExpr": f"{json.dumps(list(labels.values()))}[datum.value]",
            "labelBaseline": "line-bottom",
        },
    }
    common = {"x": x, "detail": {"field": "row"}}
    hill = {
        "mark": {
            "type": "area",
            "interpolate": "monotone",
            "color": colour,
            "fillOpacity": 0.28,
            "line": {"color": colour, "strokeWidth": 1.5},
        },
        "encoding": {**common, "y": y, "y2": {"field": "row"}},
    }
    # Points without ink, for the pointer to find.
    points = {
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 0},
        "encoding": {
            **common,
            "y": y,
            "tooltip": [
                {"field": "setting", "title": "λ"},
                {"field": "weight", "title": "|weight| about", "format": ".1~e"},
                {"field": "share", "title": "share of weights, %", "format": ".2f"},
            ],
        },
    }
    return _chart(
        [hill, points],
        data={"values": rows},
        transform=[
            {"calculate": f"datum.row + {stretch:.5f} * datum.share", "as": "top"},
            {"calculate": "pow(10, datum.at)", "as": "weight"},
        ],
    )


def parameters(table: pd.DataFrame, series: Mapping[str, Series]) -> Spec:
    """Draw the number of parameters of every layer, a bar for each series.

    Parameters
    ----------
    table : DataFrame
        Columns series, layer, parameters; every series has the same layers, in order.
    series : mapping
        A series for each value of the column, in order.
    """
    layers = table["layer"].unique().tolist()
    rows = [
        {"series": series[key].label, "layer": layer, "parameters": int(count)}
        for key, layer, count in table[["series", "layer", "parameters"]].itertuples(index=False)
    ]
    names = [one.label for one in series.values()]
    bars = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "sort": layers, "axis": {"domain": False}},
            "yOffset": {"field": "series", "scale": {"domain": names}},
            "x": {
                "field": "parameters",
                "type": "quantitative",
                "scale": {"domain": [0, int(table["parameters"].max())], "nice": True},
                "axis": {"format": ",d", "tickCount": 5},
            },
            "color": _looks(series.values())["color"],
            "tooltip": [
                {"field": "series", "title": "series"},
                {"field": "layer", "title": "layer"},
                {"field": "parameters", "title": "parameters", "format": ",d"},
            ],
        },
    }
    return _chart(
        [bars],
        data={"values": rows},
        transform=[_switch(series.values())],
        params=_params(series.values()),
        height=24 * len(layers),
    )


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


def _chart(layers: list[Spec], **rest: Any) -> Spec:
    return {
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 4,
        "config": CONFIG,
        "layer": layers,
        **rest,
    }


def _params(series: Iterable[Series]) -> list[Spec]:
    """Make the switches: a value for each series that says whether it shows."""
    return [{"name": f"show_{i}", "value": True} for i, _ in enumerate(series)]


def _switch(series: Iterable[Series]) -> Spec:
    labels = [one.label for one in series]
    shown = ", ".join(f"show_{i}" for i in range(len(labels)))
    return {"filter": f"[{shown}][indexof({json.dumps(labels)}, datum.series)]"}


def _looks(series: Iterable[Series]) -> Spec:
    known = list(series)
    domain = [one.label for one in known]
    channels: dict[str, list[Any]] = {
        "color": [one.colour for one in known],
        "shape": [one.marker for one in known],
        "strokeDash": [one.dash for one in known],
    }
    return {
        channel: {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": domain, "range": values},
            "legend": None,
        }
        for channel, values in channels.items()
    }


def _without(looks: Spec, channel: str) -> Spec:
    return {name: look for name, look in looks.items() if name != channel}


def _interval(x: Spec, y: Any, looks: Spec, measure: str, tooltip: list[Spec]) -> list[Spec]:
    """Make the layers of a mean and its interval."""
    rule = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"x": x, "y": y("low"), "y2": {"field": "y_high"}, "color": looks["color"]},
    }
    # What is known without an interval, such as a figure that was reported, has no ends to format.
    ends = " + ' … ' + ".join(f"format(datum.{end}, '.2f')" for end in ("low", "high"))
    mean = {
        "transform": [{"calculate": f"isValid(datum.low) ? {ends} : 'none'", "as": "ends"}],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
        "encoding": {
            "x": x,
            "y": y("mean"),
            **looks,
            "tooltip": [
                *tooltip,
                *_numbers(measure, mean="mean"),
                {"field": "ends", "title": "95 % interval"},
            ],
        },
    }
    return [rule, mean]


def _numbers(measure: str, **titles: str) -> list[Spec]:
    percent = measure == "accuracy"
    return [
        {
            "field": field,
            "title": f"{title}, %" if percent else title,
            "format": ".2f" if percent else ".4f",
        }
        for field, title in titles.items()
    ]


def _values(table: pd.DataFrame, measure: str) -> list[Spec]:
    """Rows for a specification: few digits, and no field where there is no value."""
    digits = 3 if measure == "accuracy" else 5
    return [
        {
            str(key): round(value, digits) if isinstance(value, float) else value
            for key, value in row.items()
            if not pd.isna(value)
        }
        for row in table.to_dict("records")
    ]


def _plotted(fields: Iterable[str], measure: str) -> list[Spec]:
    """Make what is drawn of each field: a logarithm needs a floor, here one error in 10,000."""
    floored = "max(0.01, 100 - {})" if measure == "accuracy" else "max(0.0001, {})"
    return [
        {
            "calculate": f"isValid(datum.{name}) ? {floored.format(f'datum.{name}')} : null",
            "as": f"y_{name}",
        }
        for name in fields
    ]


def _y(values: NDArray[np.float64], measure: str) -> Callable[[str], Spec]:
    """Make the y channel of a field, on a log scale around all `values`."""
    accuracy = measure == "accuracy"
    drawn = (100 - values).clip(0.01) if accuracy else values.clip(0.0001)
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    margin = max((high / low) ** 0.06, 1.02)
    domain = [low / margin, min(high * margin, 100) if accuracy else high * margin]
    scale = {"type": "log", "domain": domain, "nice": False, "reverse": accuracy}
    axis: Spec = {"values": ticks(domain[0], domain[1])}
    if accuracy:
        axis["labelExpr"] = "format(100 - datum.value, '.6~g') + ' %'"
    else:
        axis["format"] = ".3~g"

    def channel(field: str) -> Spec:
        return {"field": f"y_{field}", "type": "quantitative", "scale": scale, "axis": axis}

    return channel


def ticks(low: float, high: float) -> list[float]:
    """Choose round numbers for a log axis: equal steps where it is short, else 1, 2, 5, 10, …."""
    if high / low > 6:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        round_numbers = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    else:
        rough = (high - low) / 4
        power = math.floor(math.log10(rough))
        step = next(s for s in (1, 2, 2.5, 5, 10) if s * 10.0**power >= rough) * 10.0**power
        first = math.ceil(low / step)
        round_numbers = [
            float(f"{n * step:.10g}") for n in range(first, math.floor(high / step) + 1)
        ]
    return [number for number in round_numbers if low <= number <= high]
