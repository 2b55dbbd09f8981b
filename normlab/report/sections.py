"""What the report shows: each chart with its words, worked out of the tables of the stages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from normlab import formatting as fmt
from normlab.report import charts
from normlab.studies import STUDIES

NEAR = 10  # times the least error; arms further off hide how the others differ

Images = NDArray[np.uint8]


class Inputs(NamedTuple):
    """All that the page is made of: what other stages wrote, and the settings they were given."""

    summary: pd.DataFrame
    comparisons: pd.DataFrame
    test_curves: pd.DataFrame
    histories: pd.DataFrame
    parameters: pd.DataFrame
    misclassified: pd.DataFrame
    images: Mapping[int, Images]
    studies: dict[str, pd.DataFrame]
    study_summaries: dict[str, pd.DataFrame]
    study_histories: dict[str, pd.DataFrame]
    weights: pd.DataFrame
    findings: pd.DataFrame
    reported: dict[str, float]
    params: dict[str, Any]
    study_params: dict[str, Any]
    locks: dict[str, dict[str, Any]]
    requirements: str

    @property
    def labels(self) -> dict[str, str]:
        """The variants compared, in order, and their names for people."""
        return dict(zip(self.summary["variant"], self.summary["label"], strict=True))

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Mean, std, low and high by variant and measure; what is not known is None."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in _records(self.summary):
            found.setdefault(row["variant"], {})[row["measure"]] = row
        return found

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The comparisons of two variants each, in order."""
        return _records(self.comparisons)

    @property
    def judged(self) -> dict[str, dict[str, Any]]:
        """The findings by the names of their claims; what is not known is None."""
        return {row["name"]: row for row in _records(self.findings)}

    @property
    def final(self) -> pd.DataFrame:
        """Test accuracy of every trial after its last epoch."""
        last = self.test_curves.groupby("variant")["epoch"].transform("max")
        return self.test_curves[self.test_curves["epoch"] == last]

    def arms(self, study: str, measure: str = "test_accuracy") -> pd.DataFrame:
        """Pick a measure of each arm of a study: its columns and label, mean, low and high."""
        table = self.study_summaries[study]
        return table[table["measure"] == measure].drop(columns=["measure", "std"])

    def labelled(self, study: str, table: pd.DataFrame) -> pd.DataFrame:
        """Add each row's arm's label, as `series`, to a table of a study."""
        arms = self.arms(study).drop(columns=["seeds", "mean", "low", "high"])
        named = arms.rename(columns={"label": "series"})
        return table.merge(named, how="left", on=[c for c in named if c != "series"])


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
    places = {variant: place for place, variant in enumerate(inputs.labels)}
    final = inputs.final.assign(series=inputs.final["variant"], accuracy=_percent("accuracy"))
    summary = inputs.summary[inputs.summary["measure"] == "accuracy"]
    return dots_figure(
        "accuracies",
        "Test accuracy after the last epoch",
        _beside(final, places),
        _placed(summary.assign(series=summary["variant"]), places),
        series,
        list(inputs.labels.values()),
    )


def curve_figures(inputs: Inputs, series: Mapping[str, charts.Series]) -> list[Figure]:
    """Draw accuracy and loss over epochs, on test and on validation images."""
    validation = inputs.histories.rename(columns={"val_accuracy": "accuracy", "val_loss": "loss"})
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
    found = inputs.judged
    whole = 60_000 - inputs.params["val_size"]
    parts = []
    for study, blocks in drawn.items():
        size = 60_000 if study == "replication" else own[f"{study}_train_size"] or whole
        parts.append(
            {
                "name": study,
                "title": STUDIES[study].title,
                "blocks": blocks,
                "findings": [key for key, finding in found.items() if finding["study"] == study],
                "run": f"{fmt.many(own[f'{study}_epochs'], 'epoch')}, "
                f"{fmt.many(len(own[f'{study}_seeds']), 'seed')} per arm, "
                f"{size:,} training images",
            }
        )
    return parts


Block = tuple[list[Figure], list[charts.Series]]
"""Figures, and the series that switches show and hide in all of them."""


def groups_figures(inputs: Inputs) -> list[Block]:
    """Group norm: accuracy by number of groups, and how fast it converges.

    Arms that fail outright take the scale from the others, which then are shown once more.
    """
    arms = inputs.arms("groups")
    series = charts.ordered({label: label for label in arms["label"]})
    errors = 1 - arms["mean"]
    near = arms[errors <= NEAR * errors.min()]
    history = inputs.labelled("groups", inputs.study_histories["groups"])

    def block(name: str, shown: pd.DataFrame, how: str) -> Block:
        own = {label: series[label] for label in shown["label"]}
        ticks = shown["gn_groups"].astype(str).tolist()
        title = f"Test accuracy by number of groups{how}"
        accuracy = _by_arm(inputs, "groups", f"{name}_accuracy", title, own, ticks, "groups")
        curves = _convergence(
            f"{name}_convergence",
            f"Validation accuracy by number of groups{how}",
            history[history["series"].isin(own)],
            own,
        )
        return [accuracy, curves], list(own.values())

    blocks = [block("groups", arms, "")]
    if len(near) < len(arms):
        far = arms.drop(index=near.index)["gn_groups"].astype(str)
        blocks.append(block("groups_near", near, f", without {', '.join(far)}"))
    return blocks


def l1_figures(inputs: Inputs) -> list[Block]:
    """Batch norm + L1: accuracy by λ, and how the weights are distributed."""
    arms = inputs.arms("l1")
    ticks = [fmt.power_of_ten(weight) for weight in arms["l1_lambda"]]
    position = list(inputs.labels).index(arms["variant"].iloc[0])
    look = f"var(--series-{position})"
    series = {label: charts.Series(label, look, position) for label in arms["label"]}
    title = "Test accuracy by λ"
    accuracy = _by_arm(inputs, "l1", "l1_accuracy", title, series, ticks, "λ")
    weights = inputs.labelled("l1", inputs.weights)
    small = inputs.arms("l1", "small_weights")
    rows = [
        [
            tick,
            f"{share:.1%}".replace("%", " %"),
            f"{_median(weights[weights['series'] == label]):.2g}",
        ]
        for tick, label, share in zip(ticks, small["label"], small["mean"], strict=True)
    ]
    shares = ", ".join(f"λ {row[0]}: {row[1]}" for row in rows)
    distribution = Figure(
        "l1_weights",
        "How large the weights are, by λ",
        f"Distribution of absolute weights by λ. Share below 0.001: {shares}.",
        charts.weights(weights, dict(zip(series, ticks, strict=True)), look),
        ["λ", "share below 0.001", "median, about"],
        rows,
    )
    return [([accuracy, distribution], [])]


def layer_norm_figures(inputs: Inputs) -> list[Block]:
    """Layer norm: accuracy beside the number of parameters, and how fast it converges."""
    counts = inputs.arms("layer_norm", "parameters")
    series = charts.named({label: label for label in counts["label"]})
    sizes = [f"{count:,.0f}" for count in counts["mean"]]
    ticks = [
        [*label.split(", "), size] if ", " in label else [label, "", size]
        for label, size in zip(series, sizes, strict=True)
    ]
    title = "Test accuracy beside the number of parameters"
    accuracy = _by_arm(inputs, "layer_norm", "layer_norm_accuracy", title, series, ticks)
    rows = [
        [label, size, *row[1:]]
        for label, size, row in zip(series, sizes, accuracy.rows, strict=True)
    ]
    header = ["normalization", "parameters", *accuracy.header[1:]]
    history = inputs.labelled("layer_norm", inputs.study_histories["layer_norm"])
    curves = _convergence(
        "layer_norm_convergence", "Validation accuracy by normalization", history, series
    )
    return [([accuracy._replace(header=header, rows=rows), curves], list(series.values()))]


def batch_size_figures(inputs: Inputs) -> list[Block]:
    """Draw accuracy against the size of the batch, for the three normalizations."""
    arms = inputs.arms("batch_size")
    summary = _percents(arms.rename(columns={"label": "series", "batch_size": "size"}))
    series = charts.named({label: label for label in summary["series"].unique()})
    cells = {(row["series"], row["size"]): row for row in summary.to_dict("records")}
    sizes = sorted(summary["size"].unique().tolist())

    def cell(key: str, size: int) -> str:
        row = cells[key, size]
        return f"{fmt.percent(row['mean'] / 100)} ({_ends(row)})"

    ends = ", ".join(
        f"{key} {fmt.percent(cells[key, size]['mean'] / 100)} at {size}"
        for key in series
        for size in (sizes[0], sizes[-1])
    )
    title = "Test accuracy by batch size"
    figure = Figure(
        "batch_size_accuracy",
        title,
        f"{title}, means over seeds with intervals: {ends}.",
        charts.by_size(summary, series, "images in a batch, log scale"),
        ["batch", *series],
        [[str(size), *(cell(key, size) for key in series)] for size in sizes],
    )
    return [([figure], list(series.values()))]


MEASURED = {"train_eval_accuracy": "Training images", "test_accuracy": "Test images"}


def replication_figures(inputs: Inputs) -> list[Block]:
    """Draw accuracy by the reference's recipe: on training and test images, and as reported."""
    table = inputs.studies["replication"]
    kinds = MEASURED | {"reported": "The reference’s report"}
    series = charts.named(kinds, first=len(inputs.labels))
    labels = dict(inputs.arms("replication")[["variant", "label"]].to_numpy().tolist())
    trials, means = [], []
    for measure, shift in zip(MEASURED, (-0.25, 0.05), strict=True):
        places = {variant: place + shift for place, variant in enumerate(labels)}
        arms = _percents(inputs.arms("replication", measure))
        means.append(arms.assign(series=measure, at=arms["variant"].map(places)))
        at = table["variant"].map(places) + 0.09
        trials.append(table.assign(series=measure, at=at, accuracy=_percent(measure)))
    said = [
        {"series": "reported", "at": place + 0.33, "mean": 100 * inputs.reported[variant]}
        for place, variant in enumerate(labels)
        if variant in inputs.reported
    ]
    rows = _replication_rows(inputs, labels)
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
            pd.concat(trials)[["series", "at", "seed", "accuracy"]],
            pd.concat([*means, pd.DataFrame(said)])[["series", "at", "mean", "low", "high"]],
            series,
            list(labels.values()),
        ),
        ["normalization", *kinds.values(), "training less test, points"],
        rows,
    )
    own_series = charts.named(labels)
    history = inputs.study_histories["replication"].rename(
        columns={"variant": "series", "train_eval_accuracy": "val_accuracy"}
    )
    swings = _convergence(
        "replication_convergence", "Accuracy on training images", history, own_series
    )
    return [([accuracy], list(series.values())), ([swings], list(own_series.values()))]


def _replication_rows(inputs: Inputs, labels: Mapping[str, str]) -> list[list[str]]:
    """Say what each variant's trials measured, and by how much more on training images."""
    found = {
        (measure, row["variant"]): row
        for measure in (*MEASURED, "optimism")
        for row in _records(inputs.arms("replication", measure))
    }

    def said(row: Mapping[str, Any], text: Callable[[float | None], str]) -> str:
        return f"{text(row['mean'])} ({fmt.interval(row['low'], row['high'], text)})"

    return [
        [
            label,
            *(said(found[measure, variant], fmt.percent) for measure in MEASURED),
            fmt.percent(inputs.reported.get(variant)),
            said(found["optimism", variant], fmt.points),
        ]
        for variant, label in labels.items()
    ]


def _ends(summary: Mapping[Any, float]) -> str:
    return fmt.interval(summary["low"], summary["high"], fmt.two_digits)


def _percent(column: str) -> Any:
    return lambda frame: 100 * frame[column]


def _median(weights: pd.DataFrame) -> float:
    """Estimate the median of a distribution given as shares of bins of equal width."""
    shares = weights["share"].cumsum().to_numpy()
    middle = int(np.searchsorted(shares, shares[-1] / 2))
    return float(10 ** weights[["low", "high"]].iloc[middle].mean())


def _percents(table: pd.DataFrame) -> pd.DataFrame:
    """Turn mean, low and high from fractions into percent."""
    return table.assign(
        **{name: 100 * table[name].astype(float) for name in ("mean", "low", "high")}
    )


def _placed(summary: pd.DataFrame, places: Mapping[str, int]) -> pd.DataFrame:
    """Columns series, at, mean, low and high (percent), as `charts.dots` takes them."""
    rows = _percents(summary).assign(at=summary["series"].map(places))
    return rows[["series", "at", "mean", "low", "high"]]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as dictionaries; what is not known is None."""
    rows = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _beside(trials: pd.DataFrame, places: Mapping[str, int]) -> pd.DataFrame:
    """Place the trials of each series in a row of points, left of the mean."""
    order = trials.groupby("series")["seed"].rank(method="first") - 1
    seeds = max(2, trials["seed"].nunique())
    at = trials["series"].map(places) - 0.34 + 0.2 * order / (seeds - 1)
    return trials.assign(at=at)[["series", "at", "seed", "accuracy"]]


def _by_arm(
    inputs: Inputs,
    study: str,
    name: str,
    title: str,
    series: Mapping[str, charts.Series],
    ticks: Sequence[str | list[str]],
    axis: str | None = None,
) -> Figure:
    """Draw the test accuracy of the arms whose labels `series` has, in its order."""
    places = {label: place for place, label in enumerate(series)}
    table = inputs.labelled(study, inputs.studies[study])
    trials = table[table["series"].isin(places)].assign(accuracy=_percent("test_accuracy"))
    arms = inputs.arms(study).rename(columns={"label": "series"})
    summary = _placed(arms[arms["series"].isin(places)], places)
    return dots_figure(name, title, _beside(trials, places), summary, series, ticks, axis)


def _convergence(
    name: str, title: str, history: pd.DataFrame, series: Mapping[str, charts.Series]
) -> Figure:
    """Draw the accuracy that a study's history calls validation accuracy, epoch by epoch."""
    table = history.rename(columns={"val_accuracy": "accuracy"})
    return curve_figure(name, title, table, series, "accuracy")
