"""The figures of the report, drawn from tables and arrays alone.

`png_bytes` renders a figure to the same bytes wherever the same matplotlib is installed. Colours
are Okabe and Ito's ("Color Universal Design", 2008), chosen to differ for people with the common
colour-vision deficiencies, and every variant has its own marker and line style too, so that colour
is never the only channel. Variants take them in the order in which a table names them, and are
called as it calls them.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

Images = NDArray[np.uint8]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":")
GREY = "#5F6368"
PAPER = "#E8EAED"
WIDTH = 9  # inches, hence 1,260 pixels: a README shows them at about two thirds

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.labelsize": 9,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "font.size": 10,
    "grid.color": PAPER,
    "image.cmap": "gray_r",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "legend.handlelength": 3,
    "legend.title_fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "savefig.dpi": 140,
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
}


@contextmanager
def _styled() -> Iterator[None]:
    # From matplotlib's own defaults, so that no matplotlibrc of the user's has a say.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
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
    originals : array (n, 28, 28), uint8
    augmented : array (k, n, 28, 28), uint8
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
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


@_styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Draw loss and accuracy over epochs: for each variant the seeds' mean and their range.

    Both axes are logarithmic, the accuracy's in the error rate, so that equal steps are equal
    factors: the first epoch stays in sight and the tenths of a percent at the end stay apart.

    Parameters
    ----------
    table : DataFrame
        Columns variant, seed, epoch (from 1), loss (nats), accuracy (a fraction).
    title : str
        Which images the curves are of.
    """
    figure = _figure(title, 4.4)
    panels = figure.subplots(1, 2)
    # A logarithm needs a floor; one error in 10,000 test images is the least above none.
    shown = table.assign(
        loss=table["loss"].clip(lower=1e-4), error=(1 - table["accuracy"]).clip(lower=1e-4)
    )
    for axes, value in zip(panels, ("loss", "error"), strict=True):
        for position, (variant, rows) in enumerate(shown.groupby("variant", sort=False)):
            line = _line(position)
            epochs = rows.groupby("epoch")[value].agg(["mean", "min", "max"])
            axes.plot(epochs.index, epochs["mean"], label=str(variant), **line)
            extent = (epochs.index, epochs["min"], epochs["max"])
            axes.fill_between(*extent, color=line["color"], alpha=0.15, linewidth=0)
            axes.vlines(*extent, color=line["color"], alpha=0.5, linewidth=1)
        axes.set_xlabel("epoch")
        axes.set_xlim(shown["epoch"].min() - 0.4, shown["epoch"].max() + 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    _logarithmic(panels[0], shown["loss"], lambda loss: f"{loss:.4g}")
    _logarithmic(panels[1], shown["error"], lambda error: f"{100 * (1 - error):.6g} %")
    panels[0].set_title("Cross-entropy loss, log scale")
    panels[1].set_title("Accuracy, log scale of the error")
    panels[1].invert_yaxis()
    seeds = shown["seed"].nunique()
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        title=f"line: mean of {seeds} seeds; band: lowest to highest" if seeds > 1 else "one seed",
        loc="outside lower left",
        alignment="left",
        ncols=4,
    )
    return figure


@_styled()
def final_accuracies(final: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw each seed's test accuracy after the last epoch, and every variant's mean and interval.

    Parameters
    ----------
    final : DataFrame
        Columns variant, seed, accuracy (a fraction).
    summary : DataFrame
        A row per variant: variant, mean, low, high (fractions; the 95 % interval's ends, which may
        be NaN).
    """
    figure = _figure("Test accuracy after the last epoch, in percent", 1.3 + 0.75 * len(summary))
    axes = figure.subplots()
    names = []
    for position, row in enumerate(summary.to_dict("records")):
        style = _line(position) | {"linestyle": "none"}
        accuracies = 100 * final.loc[final["variant"] == row["variant"], "accuracy"]
        mean, low, high = (100 * row[name] for name in ("mean", "low", "high"))
        heights = position + np.linspace(0.2, 0.36, len(accuracies))
        axes.plot(accuracies, heights, alpha=0.6, **style)
        axes.plot(mean, position, markersize=10, **style)
        axes.hlines(position, low, high, color=style["color"], linewidth=2.5)
        interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        names.append(f"{row['variant']}\n{mean:.2f} %{interval}")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.4)
    axes.grid(visible=False, axis="y")
    axes.ticklabel_format(axis="x", useOffset=False)
    known = summary["low"].notna().any()
    interval = (
        "with its 95 % t interval over seeds" if known else "which one seed gives no interval"
    )
    _caption(figure, f"small: one per seed; large: their mean, {interval}")
    return figure


def hardest(misclassified: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Choose the images that one variant gets wrong for most seeds.

    Parameters
    ----------
    misclassified : DataFrame
        Columns seed, index (of the test image), true, predicted, probability (of `predicted`).
    count : int
        How many to choose at most.

    Returns
    -------
    DataFrame
        Columns index, true, predicted (the most frequent wrong digit, the smallest on a tie),
        probability (its mean over the seeds that predicted it) and seeds (how many were wrong);
        most seeds first, then the highest probability, then the lowest index.
    """
    rows = misclassified.sort_values(["index", "seed"])
    digits = rows.groupby(["index", "true", "predicted"], as_index=False).agg(
        votes=("seed", "size"), probability=("probability", "mean")
    )
    digits["seeds"] = digits.groupby("index")["votes"].transform("sum")
    wrong = digits.sort_values(["index", "votes", "predicted"], ascending=[True, False, True])
    first = wrong.drop_duplicates("index").drop(columns="votes")
    ranked = first.sort_values(["seeds", "probability", "index"], ascending=[False, False, True])
    return ranked.head(count).reset_index(drop=True)


@_styled()
def misclassified_digits(
    misclassified: pd.DataFrame, images: Mapping[int, Images], variant: str
) -> Figure:
    """Draw the ten `hardest` test images of one variant, five to a row.

    Parameters
    ----------
    misclassified : DataFrame
        As for `hardest`.
    images : mapping
        The (28, 28) uint8 image of each index in `misclassified`.
    variant : str
    """
    figure = _figure(f"Test digits that {variant} misreads for most seeds", 5)
    panels = figure.subplots(2, 5).ravel()
    chosen = hardest(misclassified, len(panels))
    for axes, row in zip(panels, chosen.to_dict("records"), strict=False):
        axes.imshow(images[row["index"]], vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=PAPER)
        seeds = "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
        axes.set_title(
            f"true {row['true']}, predicted {row['predicted']}\n"
            f"p = {row['probability']:.2f}, {seeds}",
            fontsize=10,
        )
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    _caption(figure, "p: probability given to the wrong digit, mean over the seeds that chose it")
    return figure


@_styled()
def confusion_matrices(confusion: pd.DataFrame) -> Figure:
    """Draw the variants' confusion matrices, only the errors coloured, all on one scale.

    Parameters
    ----------
    confusion : DataFrame
        Columns variant, true, predicted, count, with a row for each of the 100 pairs of digits.
    """
    matrices = {
        str(variant): rows.sort_values(["true", "predicted"])["count"].to_numpy().reshape(10, 10)
        for variant, rows in confusion.groupby("variant", sort=False)
    }
    right = np.eye(10, dtype=bool)
    most = max(1, *(counts[~right].max() for counts in matrices.values()))
    columns = min(3, len(matrices))
    lines = -(-len(matrices) // columns)
    figure = _figure("Which test digits are taken for which", 0.95 + 3.1 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (variant, counts) in zip(panels, matrices.items(), strict=False):
        axes.imshow(np.ma.array(counts, mask=right), cmap="Oranges", vmin=0, vmax=most)
        axes.set_facecolor(PAPER)
        for true, predicted in np.argwhere(counts):
            count = counts[true, predicted]
            style: dict[str, Any] = {"color": "white" if count > 0.6 * most else "black"}
            if true == predicted:
                style = {"color": GREY, "fontsize": 6.5}
            axes.text(predicted, true, str(count), ha="center", va="center", **style)
        wrong = counts[~right].sum()
        axes.set_title(f"{variant}: {wrong:,} errors in {counts.sum():,}", fontsize=10)
        axes.set(xticks=range(10), yticks=range(10), xlabel="predicted")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("true")
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    _caption(figure, "counts over all seeds; grey: right, orange: wrong")
    return figure


@_styled()
def layer_parameters(parameters: pd.DataFrame) -> Figure:
    """Draw how many parameters each layer has in each variant.

    Parameters
    ----------
    parameters : DataFrame
        Columns variant, layer, parameters (a count); every variant has the same layers, in order.
    """
    variants = parameters.groupby("variant", sort=False)["parameters"]
    layers = parameters.groupby("layer", sort=False)["parameters"]
    figure = _figure("Parameters in each layer", 4)
    axes = figure.subplots()
    width = 0.8 / len(variants)
    for position, (variant, counts) in enumerate(variants):
        axes.bar(
            np.arange(len(layers)) + (position + 0.5) * width - 0.4,
            counts,
            width,
            color=_line(position)["color"],
            label=f"{variant}: {counts.sum():,}",
        )
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


def _line(position: int) -> dict[str, Any]:
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": DASHES[position % len(DASHES)],
    }


def _logarithmic(axes: Axes, values: pd.Series, text: Callable[[float], str]) -> None:
    """Scale the y axis between two of the ticks …, 0.1, 0.2, 0.5, 1, 2, … around the values."""
    ticks = [step * 10.0**power for power in range(-5, 10) for step in (1, 2, 5)]
    low = max(tick for tick in ticks if tick < values.min())
    high = min(tick for tick in ticks if tick > values.max())
    axes.set_yscale("log")
    axes.set_ylim(low / 1.04, high * 1.04)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
