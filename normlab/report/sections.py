"""What the report shows: each chart with its words, worked out of the tables of the stages."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from normlab import formatting as fmt
from normlab.evidence import metrics
from normlab.report import charts

SETTINGS = {
    "bn": "Batch norm",
    "gn": "Group norm",
    "ln": "Layer norm",
    "ln_channel": "Layer norm, per channel",
    "ln_elementwise": "Layer norm, per element",
}
STUDIES = {
    "groups": "How many groups?",
    "l1": "How large a penalty?",
    "layer_norm": "What do layer norm’s parameters buy?",
    "batch_size": "How small a batch?",
    "replication": "What did the reference measure?",
}
NEAR = 10  # times the least error; settings further off hide how the others differ

Images = NDArray[np.uint8]


class Inputs(NamedTuple):
    """All that the page is made of: what other stages wrote, and the settings they were given."""

    metrics: dict[str, Any]
    test_curves: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    parameters: pd.DataFrame
    misclassified: pd.DataFrame
    predictions: pd.DataFrame
    images: Mapping[int, Images]
    studies: dict[str, pd.DataFrame]
    study_histories: dict[str, pd.DataFrame]
    weights: pd.DataFrame
    findings: dict[str, Any]
    findings_table: str
    reported: dict[str, float]
    params: dict[str, Any]
    study_params: dict[str, Any]
    locks: dict[str, dict[str, Any]]
    requirements: str

    @property
    def variants(self) -> list[str]:
        """The variants compared, in order."""
        return [name for name, values in self.metrics.items() if "accuracy" in values]

    @property
    def pairs(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The comparisons of two variants each, in order."""
        return {
            (one, other): values
            for name, values in self.metrics.items()
            if "difference" in values
            for one, other in [name.split("_vs_")]
        }

    @property
    def final(self) -> pd.DataFrame:
        """Test accuracy of every trial after its last epoch."""
        last = self.test_curves.groupby("variant")["epoch"].transform("max")
        return self.test_curves[self.test_curves["epoch"] == last]


class Figure(NamedTuple):
    """One chart with its words: the specification, its picture and its numbers."""

    name: str
    title: str
    label: str
    """What a reader who cannot see the chart is told."""
    spec: charts.Spec
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def picture(self) -> Markup:
        """The chart as an SVG element."""
        return Markup(charts.picture(self.spec))  # noqa: S704  drawn and escaped by vl_convert


def comparison(inputs: Inputs, series: Mapping[str, charts.Series]) -> Figure:
    """Draw the test accuracy of every variant, seed by seed."""
    places = {variant: place for place, variant in enumerate(inputs.variants)}
    final = inputs.final.assign(series=inputs.final["variant"], accuracy=_percent("accuracy"))
    columns = {"mean": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    rows = [
        {"series": variant, "at": place}
        | {name: _scaled(inputs.metrics[variant][key]) for name, key in columns.items()}
        for variant, place in places.items()
    ]
    summary = pd.DataFrame(rows).astype(dict.fromkeys(columns, float))
    return dots_figure(
        "accuracies",
        "Test accuracy after the last epoch",
        _beside(final, places),
        summary,
        series,
        [fmt.label(variant) for variant in places],
    )


def curve_figures(inputs: Inputs, series: Mapping[str, charts.Series]) -> list[Figure]:
    """Draw accuracy and loss over epochs, on test and on validation images."""
    validation = pd.concat(inputs.histories.values()).rename(
        columns={"val_accuracy": "accuracy", "val_loss": "loss"}
    )
    tables = {"test": inputs.test_curves, "validation": validation}
    return [
        curve_figure(
            f"{images}_{measure}",
            f"{measure.capitalize()} on {images} images",
            table.rename(columns={"variant": "series"}),
            series,
            measure,
        )
        for measure in ("accuracy", "loss")
        for images, table in tables.items()
    ]


def curve_figure(
    name: str, title: str, table: pd.DataFrame, series: Mapping[str, charts.Series], measure: str
) -> Figure:
    """Draw one measure over epochs: the seeds' mean and range.

    Parameters
    ----------
    name, title
        Of the figure.
    table : DataFrame
        Columns series, seed, epoch and the measure: a fraction, or nats for the loss.
    series, measure
        As for `charts.curves`.
    """
    scale = 100 if measure == "accuracy" else 1
    groups = table.groupby(["series", "epoch"], sort=False)[measure]
    spread = scale * groups.agg(mean="mean", low="min", high="max")
    rows = spread.reset_index()
    means = rows.pivot_table(index="epoch", columns="series", values="mean")[list(series)]

    def text(value: float) -> str:
        return f"{value:.2f} %" if measure == "accuracy" else f"{value:.4f}"

    last = means.iloc[-1]
    ends = ", ".join(f"{one.label} {text(last[key])}" for key, one in series.items())
    return Figure(
        name,
        title,
        f"{title} over epochs, the seeds’ mean and range. After epoch {means.index[-1]}: {ends}.",
        charts.curves(rows, series, measure),
        ["epoch", *(one.label for one in series.values())],
        [
            [str(epoch), *(text(value) for value in values)]
            for epoch, values in zip(means.index, means.to_numpy().tolist(), strict=True)
        ],
    )


def dots_figure(
    name: str,
    title: str,
    trials: pd.DataFrame,
    summary: pd.DataFrame,
    series: Mapping[str, charts.Series],
    ticks: Sequence[str | list[str]],
    axis: str | None = None,
) -> Figure:
    """Draw accuracies, a point for each trial, with means and intervals.

    All but name and title are as for `charts.dots`; every row of `summary` is a place.
    """
    texts = [tick if isinstance(tick, str) else ", ".join(tick) for tick in ticks]
    rows = [
        [
            text,
            fmt.percent(row["mean"] / 100),
            fmt.interval(row["low"], row["high"], fmt.two_digits),
        ]
        for text, row in zip(texts, summary.to_dict("records"), strict=True)
    ]
    means = ", ".join(f"{text}: {mean}" for text, mean, _ in rows)
    return Figure(
        name,
        title,
        f"{title}, means over seeds. {f'By {axis}: ' if axis else ''}{means}.",
        charts.dots(trials, summary, series, ticks, axis),
        [axis or "normalization", "mean", "95 % interval, %"],
        rows,
    )


def parameter_figure(inputs: Inputs, series: Mapping[str, charts.Series]) -> Figure:
    """Draw the parameters of every layer."""
    table = inputs.parameters.rename(columns={"variant": "series"})
    counts = table.pivot_table(
        index="layer", columns="series", values="parameters", sort=False, aggfunc="sum"
    )[list(series)]
    totals = {key: f"{counts[key].sum():,}" for key in series}
    said = ", ".join(f"{one.label} {totals[key]}" for key, one in series.items())
    return Figure(
        "layer_parameters",
        "Parameters of every layer",
        f"Parameters of every layer. In all: {said}.",
        charts.parameters(table, series),
        ["layer", *(one.label for one in series.values())],
        [
            *(
                [str(layer), *(f"{count:,}" for count in row)]
                for layer, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)
            ),
            ["all", *totals.values()],
        ],
    )


def studies(inputs: Inputs) -> list[dict[str, Any]]:
    """Gather what the page says of every study."""
    drawn = {
        "groups": groups_figures(inputs),
        "l1": l1_figures(inputs),
        "layer_norm": layer_norm_figures(inputs),
        "batch_size": batch_size_figures(inputs),
        "replication": replication_figures(inputs),
    }
    own = inputs.study_params
    found = inputs.findings["findings"]
    whole = 60_000 - inputs.params["val_size"]
    parts = []
    for study, blocks in drawn.items():
        size = 60_000 if study == "replication" else own[f"{study}_train_size"] or whole
        parts.append(
            {
                "name": study,
                "title": STUDIES[study],
                "blocks": blocks,
                "findings": [key for key, finding in found.items() if finding["study"] == study],
                "run": f"{fmt.many(own[f'{study}_epochs'], 'epoch')}, "
                f"{fmt.many(len(own[f'{study}_seeds']), 'seed')} per setting, "
                f"{size:,} training images",
            }
        )
    return parts


Block = tuple[list[Figure], list[charts.Series]]
"""Figures, and the series that switches show and hide in all of them."""


def groups_figures(inputs: Inputs) -> list[Block]:
    """Group norm: accuracy by number of groups, and how fast it converges.

    Settings that fail outright take the scale from the others, which then are shown once more.
    """
    table, history = inputs.studies["groups"], inputs.study_histories["groups"]
    errors = 1 - table.groupby("setting", sort=False)["test_accuracy"].mean()
    series = charts.ordered({s: f"{s} group{'s' * (s != '1')}" for s in map(str, errors.index)})
    near = [str(setting) for setting in errors.index[errors <= NEAR * errors.min()]]

    def block(name: str, shown: list[str], how: str) -> Block:
        own = {setting: series[setting] for setting in shown}
        rows, epochs = (frame[frame["setting"].isin(shown)] for frame in (table, history))
        settings = dict(zip(shown, shown, strict=True))
        accuracy = _by_setting(f"{name}_accuracy", rows, settings, own, "groups")
        curves = _convergence(
            f"{name}_convergence", f"Validation accuracy by number of groups{how}", epochs, own
        )
        return [accuracy._replace(title=f"{accuracy.title}{how}"), curves], list(own.values())

    blocks = [block("groups", list(series), "")]
    if len(near) < len(series):
        far = ", ".join(setting for setting in series if setting not in near)
        blocks.append(block("groups_near", near, f", without {far}"))
    return blocks


def l1_figures(inputs: Inputs) -> list[Block]:
    """Batch norm + L1: accuracy by λ, and how the weights are distributed."""
    table = inputs.studies["l1"]
    settings = {setting: _lambda(setting) for setting in table["setting"].unique()}
    weights = inputs.weights
    position = inputs.variants.index("bn_l1")
    look = f"var(--series-{position})"
    series = {key: charts.Series(text, look, position) for key, text in settings.items()}
    accuracy = _by_setting("l1_accuracy", table, settings, series, "λ")
    small = table.groupby("setting", sort=False)["small_weights"].mean()
    middle = {key: _median(weights[weights["setting"] == key]) for key in settings}
    rows = [
        [settings[key], f"{share:.1%}".replace("%", " %"), f"{middle[key]:.2g}"]
        for key, share in small.items()
    ]
    shares = ", ".join(f"λ {row[0]}: {row[1]}" for row in rows)
    distribution = Figure(
        "l1_weights",
        "How large the weights are, by λ",
        f"Distribution of absolute weights by λ. Share below 0.001: {shares}.",
        charts.weights(weights, settings, f"var(--series-{position})"),
        ["λ", "share below 0.001", "median, about"],
        rows,
    )
    return [([accuracy, distribution], [])]


def layer_norm_figures(inputs: Inputs) -> list[Block]:
    """Layer norm: accuracy beside the number of parameters, and how fast it converges."""
    table = inputs.studies["layer_norm"]
    counts = table.groupby("setting", sort=False)["parameters"].first()
    series = charts.named({str(key): SETTINGS.get(str(key), str(key)) for key in counts.index})
    places = {key: place for place, key in enumerate(series)}
    ticks = [
        [*one.label.split(", "), f"{count:,}"]
        if ", " in one.label
        else [one.label, "", f"{count:,}"]
        for one, count in zip(series.values(), counts, strict=True)
    ]
    trials, summary = _measured(table, places)
    accuracy = dots_figure(
        "layer_norm_accuracy",
        "Test accuracy beside the number of parameters",
        *(trials, summary, series, ticks),
    )
    rows = [
        [one.label, f"{counts[key]:,}", *row[1:]]
        for (key, one), row in zip(series.items(), accuracy.rows, strict=True)
    ]
    header = ["normalization", "parameters", *accuracy.header[1:]]
    history = inputs.study_histories["layer_norm"]
    curves = _convergence(
        "layer_norm_convergence", "Validation accuracy by normalization", history, series
    )
    return [([accuracy._replace(header=header, rows=rows), curves], list(series.values()))]


def batch_size_figures(inputs: Inputs) -> list[Block]:
    """Draw accuracy against the size of the batch, for the three normalizations."""
    table = inputs.studies["batch_size"]
    split = table["setting"].str.rsplit("_", n=1, expand=True)
    series = charts.named({key: SETTINGS.get(key, key) for key in split[0].unique()})
    groups = table.assign(series=split[0], size=split[1].astype(int)).groupby(
        ["series", "size"], sort=False
    )
    summary = pd.DataFrame(
        [
            {"series": key, "size": size} | _summary(rows["test_accuracy"])
            for (key, size), rows in groups
        ]
    )
    sizes = sorted(summary["size"].unique().tolist())
    cells = {(row["series"], row["size"]): row for row in summary.to_dict("records")}
    rows = [
        [
            str(size),
            *(
                f"{fmt.percent(cell['mean'] / 100)} ({_ends(cell)})"
                for cell in (cells[key, size] for key in series)
            ),
        ]
        for size in sizes
    ]
    ends = ", ".join(
        f"{one.label} {fmt.percent(cells[key, size]['mean'] / 100)} at {size}"
        for key, one in series.items()
        for size in (sizes[0], sizes[-1])
    )
    title = "Test accuracy by batch size"
    figure = Figure(
        "batch_size_accuracy",
        title,
        f"{title}, means over seeds with intervals: {ends}.",
        charts.by_size(summary, series, "images in a batch, log scale"),
        ["batch", *(one.label for one in series.values())],
        rows,
    )
    return [([figure], list(series.values()))]


def replication_figures(inputs: Inputs) -> list[Block]:
    """Draw accuracy by the reference's recipe: on training and test images, and as reported."""
    table = inputs.studies["replication"]
    kinds = {
        "train": "Training images",
        "test": "Test images",
        "reported": "The reference’s report",
    }
    series = charts.named(kinds, first=len(inputs.variants))
    variants = table["setting"].unique().tolist()
    trials, means, rows = [], [], []
    for place, variant in enumerate(variants):
        own = table[table["setting"] == variant]
        said = inputs.reported.get(variant)
        row = [fmt.label(variant)]
        for shift, kind in ((-0.25, "train"), (0.05, "test")):
            summary = _summary(own[f"{kind}_accuracy"])
            means.append({"series": kind, "at": place + shift} | summary)
            shifted = own.assign(
                series=kind, at=place + shift + 0.09, accuracy=100 * own[f"{kind}_accuracy"]
            )
            trials.append(shifted[["series", "at", "seed", "accuracy"]])
            row.append(f"{fmt.percent(summary['mean'] / 100)} ({_ends(summary)})")
        if said is not None:
            means.append({"series": "reported", "at": place + 0.33, "mean": 100 * said})
        over = metrics.mean_interval(own["overstatement"])
        ends = fmt.interval(over.low, over.high, fmt.points)
        rows.append([*row, fmt.percent(said), f"{fmt.points(over.mean)} ({ends})"])
    title = "Accuracy by the reference’s recipe"
    values = "; ".join(
        f"{row[0]}: training images {row[1]}, test images {row[2]}, reported {row[3]}"
        for row in rows
    )
    accuracy = Figure(
        "replication_accuracy",
        title,
        f"{title}, means over seeds with intervals. {values}.",
        charts.dots(
            pd.concat(trials),
            pd.DataFrame(means),
            series,
            [fmt.label(variant) for variant in variants],
        ),
        ["normalization", *kinds.values(), "training less test, points"],
        rows,
    )
    # The reference measured on its training images after every epoch; the history does the same.
    history = inputs.study_histories["replication"]
    own_series = charts.named({variant: fmt.label(variant) for variant in variants})
    swings = _convergence(
        "replication_convergence", "Accuracy on training images", history, own_series
    )
    return [([accuracy], list(series.values())), ([swings], list(own_series.values()))]


def _ends(summary: Mapping[Any, float]) -> str:
    return fmt.interval(summary["low"], summary["high"], fmt.two_digits)


def _scaled(fraction: float | None) -> float:
    return math.nan if fraction is None else 100 * fraction


def _percent(column: str) -> Any:
    return lambda frame: 100 * frame[column]


def _lambda(setting: str) -> str:
    """Write a weight of the penalty, a power of ten as such."""
    value = float(setting)
    exponent = round(math.log10(value)) if value > 0 else 0
    return charts.power(exponent) if value == 10.0**exponent else f"{value:g}"


def _median(weights: pd.DataFrame) -> float:
    """Estimate the median of a distribution given as shares of bins of equal width."""
    shares = weights["share"].cumsum().to_numpy()
    middle = int(np.searchsorted(shares, shares[-1] / 2))
    return float(10 ** weights[["low", "high"]].iloc[middle].mean())


def _summary(fractions: "pd.Series[float]") -> dict[str, float]:
    """Mean and interval in percent."""
    found = metrics.mean_interval(fractions)
    return {key: _scaled(getattr(found, key)) for key in ("mean", "low", "high")}


def _beside(trials: pd.DataFrame, places: Mapping[str, int]) -> pd.DataFrame:
    """Place the trials of each series in a row of points, left of the mean."""
    order = trials.groupby("series")["seed"].rank(method="first") - 1
    seeds = max(2, trials["seed"].nunique())
    at = trials["series"].map(places) - 0.34 + 0.2 * order / (seeds - 1)
    return trials.assign(at=at)[["series", "at", "seed", "accuracy"]]


def _measured(table: pd.DataFrame, places: Mapping[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and summary of a study's settings, as `charts.dots` takes them."""
    trials = table.assign(series=table["setting"], accuracy=100 * table["test_accuracy"])
    rows = [
        {"series": key, "at": place} | _summary(table.loc[table["setting"] == key, "test_accuracy"])
        for key, place in places.items()
    ]
    return _beside(trials, places), pd.DataFrame(rows)


def _by_setting(
    name: str,
    table: pd.DataFrame,
    settings: Mapping[str, str],
    series: Mapping[str, charts.Series],
    axis: str,
) -> Figure:
    """Draw test accuracy by setting."""
    trials, summary = _measured(table, {key: place for place, key in enumerate(settings)})
    title = f"Test accuracy by {'number of groups' if axis == 'groups' else axis}"
    return dots_figure(name, title, trials, summary, series, list(settings.values()), axis)


def _convergence(
    name: str, title: str, history: pd.DataFrame, series: Mapping[str, charts.Series]
) -> Figure:
    """Draw the accuracy that a study's history calls validation accuracy, epoch by epoch."""
    table = history.rename(columns={"setting": "series", "val_accuracy": "accuracy"})
    return curve_figure(name, title, table, series, "accuracy")
