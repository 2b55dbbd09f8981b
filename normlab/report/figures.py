"""The figures of the report by matplotlib, drawn from tables and arrays alone.

`png_bytes` renders a figure to the same bytes wherever the same matplotlib is installed. Series
take the looks of `looks` in the order in which a table names them, and are called as it calls them.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from normlab import formatting as fmt
from normlab.data.datasets import Dataset
from normlab.report import figure_tables, looks

Images = NDArray[np.uint8]

GREY = "#5F6368"
PAPER = "#E8EAED"
STYLE = Path(__file__).with_name("figures.mplstyle")
NUMBERED, NAMED = 12, 40  # classes
WIDTH = 9  # inches, hence 1,260 pixels: a README shows them at about two thirds


@contextmanager
def _styled() -> Iterator[None]:
    # From matplotlib's own defaults, so that no matplotlibrc of the user's has a say.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.style.use(STYLE)
        yield


@_styled()
def png_bytes(figure: Figure) -> bytes:
    """Render a figure as PNG: the same bytes at every call, no version and no date among them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    # Laid out once more, from where this left it, things would move by a pixel.
    figure.set_layout_engine("none")
    return buffer.getvalue()


@_styled()
def samples(originals: Images, augmented: Images) -> Figure:
    """Draw training images above augmented versions of themselves.

    Parameters
    ----------
    originals : array (n, side, side), uint8
    augmented : array (k, n, side, side), uint8
        `k` draws for each of the `n` images.
    """
    rows = np.concatenate([originals[None], augmented])
    framed = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=30)
    count, columns, side, _ = framed.shape
    height = 0.6 + (WIDTH - 1) / columns * count
    figure = _figure("Training images, and what the random affine makes of them", height)
    axes = figure.subplots()
    axes.imshow(framed.swapaxes(1, 2).reshape(count * side, columns * side), vmin=0, vmax=255)
    names = ["original", *(f"draw {draw}" for draw in range(1, count))]
    axes.set_yticks((np.arange(count) + 0.5) * side - 0.5, names)
    axes.set_xticks([])
    _bare(axes)
    return figure


@_styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Draw loss and accuracy over epochs: for each series the seeds' mean and their range.

    Both axes are logarithmic, the accuracy's in the error rate, so that equal steps are equal
    factors: the first epoch stays in sight and the tenths of a percent at the end stay apart.

    Parameters
    ----------
    table : DataFrame
        Columns series, seed, epoch (from 1), loss (nats), accuracy (a fraction).
    title : str
        Which images the curves are of.
    """
    figure = _figure(title, 4.4)
    losses, accuracies = figure.subplots(1, 2)
    _spread(losses, table, "loss", lambda loss: f"{loss:.4g}")
    _spread(accuracies, table, "accuracy", lambda error: f"{100 * (1 - error):.6g} %")
    losses.set_title("Cross-entropy loss, log scale")
    accuracies.set_title("Accuracy, log scale of the error")
    accuracies.invert_yaxis()
    seeds = table["seed"].nunique()
    figure.legend(
        *losses.get_legend_handles_labels(),
        title=f"line: mean of {seeds} seeds; band: lowest to highest" if seeds > 1 else "one seed",
        loc="outside lower left",
        alignment="left",
        ncols=4,
    )
    return figure


@_styled()
def final_accuracies(points: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """Draw each seed's test accuracy after the last epoch, and every series' mean and interval.

    The tables are as `figure_tables.accuracies` gives them: columns series, at and seed, accuracy
    or mean, low, high.
    """
    figure = _figure("Test accuracy after the last epoch, in percent", 1.3 + 0.75 * len(means))
    axes = figure.subplots()
    names = []
    for position, row in enumerate(means.to_dict("records")):
        look = _look(position) | {"linestyle": "none"}
        own = points[points["series"] == row["series"]]
        mean, low, high = (100 * row[name] for name in ("mean", "low", "high"))
        axes.plot(100 * own["accuracy"], own["at"], alpha=0.6, **look)
        axes.plot(mean, row["at"], markersize=10, **look)
        axes.hlines(row["at"], low, high, color=look["color"], linewidth=2.5)
        interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        names.append(f"{row['series']}\n{mean:.2f} %{interval}")
    axes.set_yticks(means["at"], names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.ticklabel_format(axis="x", useOffset=False)
    known = (
        "with its 95 % interval over seeds and images"
        if means["low"].notna().any()
        else "no interval"
    )
    _caption(figure, f"small: one per seed; large: their mean, {known}")
    return figure


@_styled()
def misclassified_images(
    misclassified: pd.DataFrame, images: Mapping[int, Images], label: str, dataset: Dataset
) -> Figure:
    """Draw the ten `hardest` test images of one variant, five to a row.

    Parameters
    ----------
    misclassified : DataFrame
        As for `figure_tables.hardest`.
    images : mapping
        The (side, side) uint8 image of each index in `misclassified`.
    label, dataset
        The variant's name, and what the images are of.
    """
    noun = dataset.noun
    figure = _figure(f"Test {noun}s that {label} misreads for most seeds", 5)
    panels = figure.subplots(2, 5).ravel()
    chosen = figure_tables.hardest(misclassified, len(panels))
    for axes, row in zip(panels, chosen.to_dict("records"), strict=False):
        true, predicted = (dataset.names[row[name]] for name in ("true", "predicted"))
        between = ", " if len(true + predicted) <= 6 else ",\n"
        axes.imshow(images[row["index"]], vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PAPER)
        axes.set_title(
            f"true {true}{between}predicted {predicted}\n"
            f"p = {row['probability']:.2f}, {fmt.many(row['seeds'], 'seed')}",
            fontsize=10,
        )
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    _caption(figure, f"p: probability given to the wrong {noun}, mean over the seeds that chose it")
    return figure


@_styled()
def confusion_matrices(confusion: pd.DataFrame, dataset: Dataset) -> Figure:
    """Draw the confusion matrix of every series, only the errors coloured, all on one scale.

    Parameters
    ----------
    confusion : DataFrame
        Columns series, true, predicted, count, with a row for each pair of classes.
    dataset : Dataset
        Of more classes than `NUMBERED` no counts are written, of more than `NAMED` no names.
    """
    classes = confusion["true"].nunique()
    ordered = confusion.sort_values(["true", "predicted"]).groupby("series", sort=False)["count"]
    series = confusion["series"].unique()
    matrices = [ordered.get_group(name).to_numpy().reshape(classes, classes) for name in series]
    names = dataset.names[: classes if classes <= NAMED else 0]
    turned, pt = (90, 8) if any(len(name) > 3 for name in names) else (0, 10)
    right = np.eye(classes, dtype=bool)
    most = max(1, *(counts[~right].max() for counts in matrices))
    columns = min(3, len(matrices))
    lines = -(-len(matrices) // columns)
    figure = _figure(f"Which test {dataset.noun}s are taken for which", 0.95 + 3.1 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, name, counts in zip(panels, series, matrices, strict=False):
        axes.imshow(np.ma.array(counts, mask=right), cmap="Oranges", vmin=0, vmax=most)
        axes.set(facecolor=PAPER, xlabel="predicted")
        for true, predicted in np.argwhere(counts) if classes <= NUMBERED else ():
            count = counts[true, predicted]
            style: dict[str, Any] = {"color": "white" if count > 0.6 * most else "black"}
            if true == predicted:
                style = {"color": GREY, "fontsize": 6.5}
            axes.text(predicted, true, str(count), ha="center", va="center", **style)
        axes.set_title(f"{name}: {counts[~right].sum():,} errors in {counts.sum():,}", fontsize=pt)
        axes.set_xticks(range(len(names)), names, rotation=turned)
        axes.set_yticks(range(len(names)), names)
        _bare(axes)
    for axes in panels[::columns]:
        axes.set_ylabel("true")
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    _caption(figure, "counts over all seeds; grey: right, orange: wrong")
    return figure


@_styled()
def layer_parameters(parameters: pd.DataFrame) -> Figure:
    """Draw how many parameters each layer has in each series.

    Parameters
    ----------
    parameters : DataFrame
        Columns series, layer, parameters (a count); every series has the same layers, in order.
    """
    series = parameters.groupby("series", sort=False)["parameters"]
    layers = parameters.groupby("layer", sort=False)["parameters"]
    figure = _figure("Parameters in each layer", 4)
    axes = figure.subplots()
    width = 0.8 / len(series)
    for position, (name, counts) in enumerate(series):
        middles = np.arange(len(layers)) + (position + 0.5) * width - 0.4
        label = f"{name}: {counts.sum():,}"
        axes.bar(middles, counts, width, color=_look(position)["color"], label=label)
    for place, (_, counts) in enumerate(layers):
        left = place - 0.4
        for count, bars in groupby(counts):  # equal neighbours share one number
            right = left + width * len(list(bars))
            axes.text((left + right) / 2, count, f"{count:,}\n", fontsize=7.5, ha="center")
            left = right
    axes.set_xticks(range(len(layers)), parameters["layer"].unique().tolist())
    axes.margins(x=0.01, y=0.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.grid(visible=False, axis="x")
    axes.legend(title="parameters in all", alignment="left", loc="upper right")
    return figure


def _figure(title: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", color=GREY)


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _look(position: int) -> dict[str, Any]:
    return {
        "color": looks.COLOURS[position % len(looks.COLOURS)],
        "marker": list(looks.MARKERS)[position % len(looks.MARKERS)],
        "linestyle": looks.LINES[position % len(looks.LINES)],
    }


def _spread(axes: Axes, table: pd.DataFrame, measure: str, text: Callable[[float], str]) -> None:
    """Draw a measure over epochs, on a log axis from one to another of 0.1, 0.2, 0.5, 1, 2, …."""
    places = figure_tables.spread(table, measure)
    drawn = figure_tables.on_log_axis(places, measure)
    for position, series in enumerate(places["series"].unique()):
        own, look = places["series"] == series, _look(position)
        axes.plot(places.loc[own, "at"], drawn.loc[own, "mean"], label=series, **look)
        extent = (places.loc[own, "at"], drawn.loc[own, "low"], drawn.loc[own, "high"])
        axes.fill_between(*extent, color=look["color"], alpha=0.15, linewidth=0)
        axes.vlines(*extent, color=look["color"], alpha=0.5, linewidth=1)
    axes.set_xlabel("epoch")
    axes.set_xlim(places["epoch"].min() - 0.4, places["epoch"].max() + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    ticks = [step * 10.0**power for power in range(-5, 10) for step in (1, 2, 5)]
    low = max(tick for tick in ticks if tick < drawn.to_numpy().min())
    high = min(tick for tick in ticks if tick > drawn.to_numpy().max())
    axes.set_yscale("log")
    axes.set_ylim(low / 1.04, high * 1.04)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
