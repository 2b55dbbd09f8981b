"""What the page shows: each chart with its title and its numbers, from the tables of the stages."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from normlab import formatting as fmt
from normlab.data import datasets
from normlab.evidence import rates, recipes
from normlab.report import charts, figure_tables, looks
from normlab.report.inputs import Inputs, records
from normlab.report.looks import Series

NEAR = 10  # times the least error; arms further off hide how the others differ
TITLES = {
    "norms": "Which normalization?",
    "groups": "How many groups?",
    "l1": "How large a penalty?",
    "batch_size": "How small a batch?",
    "reference": "What did the reference measure?",
    "tuned_1k": "Which, on 1,000 images?",
    "tuned_10k": "Which, on 10,000 images, by batch size?",
    "tuned_55k": "Which, on all images?",
}
"""Of the studies; one that is not among them goes by its name."""
AGAIN = "_fashion"
"""What the name of a study ends with that is another's once more, on other images."""
BY = {"groups": "number of groups", "l1": "λ", "norms": "normalization"}
BY |= dict.fromkeys(("tuned_1k", "tuned_55k"), "normalization")
LESS = {"optimism": "learnt from less set apart", "easier": "test less set apart"}
"""Differences of accuracies, in words."""


class Figure(NamedTuple):
    """One chart with its title and its numbers."""

    name: str
    title: str
    spec: charts.Spec
    numbers: pd.DataFrame
    """Texts; the index tells what the rows are."""
    gist: int = 0
    """From which row on the numbers are told to a reader who cannot see the chart."""

    @property
    def label(self) -> str:
        """What a reader who cannot see the chart is told."""
        told = [
            f"{first}: {', '.join(f'{name} {cell}' for name, cell in row.items())}"
            for first, row in self.numbers.iloc[self.gist :].iterrows()
        ]
        return f"{self.title}, by {self.numbers.index.name}. {'; '.join(told)}."

    @property
    def picture(self) -> Markup:
        """The chart as an SVG element."""
        return Markup(charts.picture(self.spec))  # noqa: S704  drawn and escaped by vl_convert


class Block(NamedTuple):
    """Figures side by side, and the series that switches show and hide in all of them."""

    figures: list[Figure]
    series: list[Series]


def comparison(inputs: Inputs, series: list[Series]) -> Figure:
    """Draw the test accuracy of every variant, seed by seed."""
    final = figure_tables.after_last_epoch(inputs.test_curves)
    points, means = figure_tables.accuracies(final, inputs.summary, "accuracy")
    title = "Test accuracy after the last epoch"
    chart = charts.dots(points, means, series, means["series"].tolist())
    return Figure("accuracies", title, chart, _estimates(means, "normalization"))


def curve_figures(inputs: Inputs, series: list[Series]) -> list[Figure]:
    """Draw accuracy and loss over epochs, on test and on validation images."""
    validation = inputs.histories.rename(columns={"val_accuracy": "accuracy", "val_loss": "loss"})
    tables = {"test": inputs.test_curves, "validation": validation}
    return [
        curve_figure(
            f"{images}_{measure}",
            f"{measure.capitalize()} on {images} images",
            figure_tables.spread(table, measure),
            series,
            measure,
        )
        for measure in ("accuracy", "loss")
        for images, table in tables.items()
    ]


def curve_figure(
    name: str, title: str, table: pd.DataFrame, series: list[Series], measure: str
) -> Figure:
    """Draw a measure over epochs; `table` is as `figure_tables.spread` gives it."""
    text = fmt.percent if measure == "accuracy" else "{:.4f}".format
    means = _crossed(table, "epoch", "mean", series).map(text)
    return Figure(name, title, charts.curves(table, series, measure), means, gist=-1)


def parameter_figure(inputs: Inputs, series: list[Series]) -> Figure:
    """Draw the parameters of every layer."""
    counts = _crossed(inputs.parameters, "layer", "parameters", series)
    counts.loc["all"] = [inputs.metrics[one.label]["parameters"]["mean"] for one in series]
    title, chart = "Parameters of every layer", charts.parameters(inputs.parameters, series)
    return Figure("layer_parameters", title, chart, counts.map("{:,.0f}".format), gist=-1)


def studies(inputs: Inputs) -> list[dict[str, Any]]:
    """Gather what the page says of every study; there are no blocks of one that was not run.

    Those that choose, on validation images, are told of beside what uses what they choose.
    """
    images, known = inputs.dataset.training_images, datasets.known()
    parts = []
    for study, own in inputs.study_params.items():
        if study.startswith((rates.SEARCH, recipes.STUDY)):
            continue
        kind = study.removesuffix(AGAIN)
        draw, title = FIGURES.get(kind, any_study), TITLES.get(kind, study)
        size = own["train_size"] or images - inputs.params["val_size"]
        parts.append(
            {
                "name": study,
                "kind": kind,
                "title": title if kind == study else f"{title} On {known[own['dataset']].name}",
                "blocks": draw(study, inputs) if study in inputs.studies else [],
                "findings": [
                    name for name, row in inputs.findings.items() if row["study"] == study
                ],
                "run": f"{fmt.many(own['epochs'], 'epoch')}, "
                f"{fmt.many(own['seeds'], 'seed')} per arm, "
                f"{size:,} training images",
            }
        )
    return parts


def any_study(study: str, inputs: Inputs) -> list[Block]:
    """Draw accuracy by arm, beside the weights or how fast it converges.

    Arms of one variant have an order. Those that fail outright take the scale from the others,
    which then are shown once more.
    """
    tables = inputs.studies[study]
    own, known = set(tables.summary["variant"]), list(inputs.variants)
    if len(own) == 1:
        variant = own.pop()
        series = looks.ordered(tables.labels, known.index(variant) if variant in known else 0)
    else:
        series = looks.named(tables.labels)
    beside = BESIDE.get(study.removesuffix(AGAIN), convergence)
    blocks = [Block([by_arm(study, inputs, series), beside(study, inputs, series)], series)]
    errors = [1 - row["mean"] for row in tables.measured("test_accuracy")]
    enough = NEAR * max(1e-4, min(errors))
    near = [one for one, error in zip(series, errors, strict=True) if error <= enough]
    if len(near) < len(series):
        far = f"without {', '.join(one.label for one in series if one not in near)}"
        again = [draw(study, inputs, near, far) for draw in (by_arm, convergence)]
        blocks.append(Block(again, near))
    return blocks


def sizes(study: str, inputs: Inputs) -> list[Block]:
    """Draw accuracy against the size of the batch."""
    tables = inputs.studies[study]
    means = figure_tables.by_size(tables.summary, "test_accuracy", "batch_size")
    series = looks.named(tables.labels)
    cells = means.assign(text=[estimate(row) for row in records(means)])
    numbers = _crossed(cells.rename(columns={"size": "batch"}), "batch", "text", series)
    chart = charts.by_size(means, series, "images in a batch, log scale")
    return [
        Block([Figure(f"{study}_accuracy", "Test accuracy by batch size", chart, numbers)], series)
    ]


def easier(inputs: Inputs) -> dict[str, int]:
    """Count the arms of the studies of MNIST for which the test images are the easier ones.

    They are compared with images of the training split that no trial counted has learnt from.
    """
    own = [
        tables
        for study, tables in inputs.studies.items()
        if inputs.study_params[study]["dataset"] == "mnist"
    ]
    means = [row["mean"] for tables in own for row in tables.measured("easier")]
    return {"arms": len(means), "easier": sum(mean > 0 for mean in means)}


def reference(study: str, inputs: Inputs) -> list[Block]:
    """Draw accuracy by the reference's recipe: on seen, unseen and test images, and as reported."""
    tables, reported = inputs.studies[study], "The reference’s report"
    kinds = {
        "seen_accuracy": "Training images, learnt from",
        "unseen_accuracy": "Training images, set apart",
        "test_accuracy": "Test images",
    }
    series = looks.named([*kinds.values(), reported], first=len(inputs.variants))
    said = [inputs.reported.get(row["variant"]) for row in tables.measured("test_accuracy")]
    one_seed = pd.DataFrame({"series": reported, "mean": said}, dtype=object)
    points, means = [], [one_seed.assign(at=one_seed.index + 0.43)]
    numbers = pd.DataFrame(index=pd.Index(tables.labels, name="normalization"))
    for (measure, kind), shift in zip(kinds.items(), (-0.25, 0.0, 0.25), strict=True):
        own = figure_tables.accuracies(tables.trials, tables.summary, measure)
        placed = [table.assign(series=kind, at=table["at"] + shift) for table in own]
        points.append(placed[0])
        means.append(placed[1])
        numbers[kind] = [estimate(row) for row in tables.measured(measure)]
    numbers[reported] = [fmt.percent(accuracy) for accuracy in said]
    for measure, told in LESS.items():
        numbers[f"{told}, points"] = [estimate(row, fmt.points) for row in tables.measured(measure)]
    chart = charts.dots(pd.concat(points), pd.concat(means), series, tables.labels)
    accuracy = Figure(f"{study}_accuracy", "Accuracy by the reference’s recipe", chart, numbers)
    arms = looks.named(tables.labels)
    return [Block([accuracy], series), Block([convergence(study, inputs, arms)], arms)]


FIGURES: dict[str, Callable[[str, Inputs], list[Block]]] = {
    "batch_size": sizes,
    "tuned_10k": sizes,
    "reference": reference,
}
"""What is drawn of the studies that are not like any other."""


def by_what(study: str) -> str:
    """Say what the arms of a study differ in."""
    return BY.get(study.removesuffix(AGAIN), "arm")


def by_arm(study: str, inputs: Inputs, series: list[Series], without: str = "") -> Figure:
    """Draw the test accuracy of the arms in `series`, with their sizes where these differ."""
    tables, by = inputs.studies[study], by_what(study)
    labels = [one.label for one in series]
    summary = tables.summary[tables.summary["label"].isin(labels)]
    points, means = figure_tables.accuracies(tables.trials, summary, "test_accuracy")
    counts = {row["label"]: row["mean"] for row in tables.measured("parameters")}
    numbers, ticks = _estimates(means, by), labels
    if len(set(counts.values())) > 1:
        numbers["parameters"] = [f"{counts[label]:,.0f}" for label in labels]
        ticks = [f"{label}\n{size}" for label, size in numbers["parameters"].items()]
    chart = charts.dots(points, means, series, ticks)
    name = f"{study}{'_near' if without else ''}_accuracy"
    title = f"Test accuracy by {by}{without and ', '}{without}"
    return Figure(name, title, chart, numbers)


def convergence(study: str, inputs: Inputs, series: list[Series], without: str = "") -> Figure:
    """Draw accuracy epoch by epoch, on validation images."""
    history = inputs.studies[study].history
    shown = history[history["series"].isin([one.label for one in series])]
    table = figure_tables.spread(shown, "val_accuracy")
    by = by_what(study)
    title = f"Accuracy on validation images by {by}{without and ', '}{without}"
    name = f"{study}{'_near' if without else ''}_convergence"
    return curve_figure(name, title, table, series, "accuracy")


def weights(study: str, inputs: Inputs, series: list[Series]) -> Figure:
    """Draw how the arms' weights are distributed."""
    tables, by = inputs.studies[study], by_what(study)
    small = tables.summary[tables.summary["measure"] == "small_weights"]
    return Figure(
        f"{study}_weights",
        f"How large the weights are, by {by}",
        charts.weights(figure_tables.distribution(tables.weights), series),
        _estimates(small.rename(columns={"label": "series"}), by, "share below 0.001"),
    )


BESIDE = {"l1": weights}
"""What a study changes beside its accuracy, where that is not how fast it converges."""


def _crossed(table: pd.DataFrame, rows: str, cells: str, series: list[Series]) -> pd.DataFrame:
    """Lay out a column by the values of another, in order, and by series."""
    wide: pd.DataFrame = table.pivot_table(
        index=rows, columns="series", values=cells, aggfunc="first", sort=False
    )
    return wide[[one.label for one in series]]


def _estimates(means: pd.DataFrame, by: str, title: str = "mean") -> pd.DataFrame:
    """Write means and intervals, fractions, of each series."""
    rows = records(means)
    texts = {
        title: [fmt.percent(row["mean"]) for row in rows],
        "95 % interval": [fmt.interval(row["low"], row["high"], fmt.percent) for row in rows],
    }
    return pd.DataFrame(texts, index=pd.Index(means["series"], name=by))


def estimate(row: Mapping[str, Any], text: Callable[[float], str] = fmt.percent) -> str:
    """Write a mean with its interval."""
    return f"{text(row['mean'])} ({fmt.interval(row['low'], row['high'], text)})"
