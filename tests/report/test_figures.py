"""The figures: what they show, and that they are the same bytes wherever they are drawn."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from normlab.data.datasets import FASHION_MNIST, MNIST
from normlab.report import figure_tables, figures
from tests.report.test_figure_tables import WRONG

ROOT = Path(__file__).parents[2]
BN, GN, LN = "Batch norm + L1", "Group norm", "Layer norm"
VARIANTS = {BN: 0.9935, GN: 0.9941, LN: 0.9908}


def curve_table(seeds: int, epochs: int, variants: dict[str, float]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for (variant, end), seed in itertools.product(variants.items(), range(seeds)):
        for epoch in range(1, epochs + 1):
            error = (1 - end) * (1 + 10 / epoch**2) * rng.uniform(0.9, 1.1)
            rows.append((variant, seed, epoch, 3 * error, 1 - error))
    return pd.DataFrame(rows, columns=["series", "seed", "epoch", "loss", "accuracy"])


def summary_table(final: pd.DataFrame) -> pd.DataFrame:
    groups = final.groupby("series", sort=False)["accuracy"]
    mean, half = groups.mean(), 2 * groups.std()  # NaN with one seed
    ends = {"mean": mean, "low": mean - half, "high": mean + half}
    return pd.DataFrame(ends).reset_index(names="label").assign(measure="accuracy")


def misclassified_table(seeds: int, images: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        (seed, 7 * index, index % 10, (index + 1 + seed % 2) % 10, rng.uniform(0.3, 1))
        for index in range(images)
        for seed in range(1 + index % seeds)
    ]
    return pd.DataFrame(rows, columns=["seed", "index", "true", "predicted", "probability"])


def confusion_table(seeds: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        (variant, true, predicted, seeds * (980 if true == predicted else int(rng.poisson(0.7))))
        for variant, true, predicted in itertools.product(VARIANTS, range(10), range(10))
    ]
    return pd.DataFrame(rows, columns=["series", "true", "predicted", "count"])


def parameter_table() -> pd.DataFrame:
    shapes = [(12, 26), (16, 24), (6, 24), (12, 10), (14, 8), (14, 6), (14, 6)]
    weights = [108, 1728, 96, 648, 1512, 1764, 1764]
    rows = []
    for variant in VARIANTS:
        for i, ((channels, side), weight) in enumerate(zip(shapes, weights, strict=True), start=1):
            area = side * side if variant == LN else 1
            rows += [(variant, f"conv{i}", weight), (variant, f"norm{i}", 2 * channels * area)]
        rows.append((variant, "linear", 150))
    return pd.DataFrame(rows, columns=["series", "layer", "parameters"])


def draw_all(seeds: int, epochs: int) -> dict[str, Figure]:
    pixels = np.random.default_rng(3).integers(0, 256, (4, 6, 28, 28), dtype=np.uint8)
    table = curve_table(seeds, epochs, VARIANTS)
    final = table[table["epoch"] == epochs]
    wrong = misclassified_table(seeds, 12)
    return {
        "samples": figures.samples(pixels[0], pixels[1:]),
        "curves": figures.curves(table, "Test set, epoch by epoch"),
        "final": figures.final_accuracies(
            *figure_tables.accuracies(final, summary_table(final), "accuracy")
        ),
        "misclassified": figures.misclassified_images(
            wrong, dict.fromkeys(wrong["index"], pixels[0, 0]), GN, MNIST
        ),
        "confusion": figures.confusion_matrices(confusion_table(seeds), MNIST),
        "parameters": figures.layer_parameters(parameter_table()),
    }


def digests(drawn: dict[str, Figure]) -> dict[str, str]:
    return {
        name: hashlib.sha256(figures.png_bytes(figure)).hexdigest()
        for name, figure in drawn.items()
    }


def texts(figure: Figure) -> list[str]:
    """All the figure says, tick labels as they are after rendering."""
    figures.png_bytes(figure)
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for artist in found if (text := artist.get_text())]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("seeds", "epochs"), [(1, 1), (3, 10)])
def test_every_figure_renders_to_the_same_png_again(seeds: int, epochs: int) -> None:
    drawn = draw_all(seeds, epochs)
    for name, figure in drawn.items():
        png = figures.png_bytes(figure)
        assert png.startswith(b"\x89PNG"), name
        assert b"matplotlib" not in png.lower(), name
        assert int.from_bytes(png[16:20]) == 1260, name
        assert len(png) < 200_000, name
        assert figures.png_bytes(figure) == png, name


def test_no_setting_of_the_user_changes_a_byte(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\naxes.formatter.use_locale: True\nsavefig.dpi: 50\nlines.linewidth: 9\n"
        "text.usetex: True\nsavefig.bbox: tight\nimage.cmap: jet\n"
    )
    environment = os.environ | {
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(ROOT),
        "TZ": "Asia/Tokyo",
    }
    other = subprocess.run(
        [sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(other.stdout) == digests(draw_all(3, 10))


def test_drawing_leaves_the_global_settings_alone() -> None:
    before = dict(mpl.rcParams)
    figures.png_bytes(figures.layer_parameters(parameter_table()))
    assert dict(mpl.rcParams) == before


def test_samples_show_every_image_unchanged_and_labelled() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (3, 5, 28, 28), dtype=np.uint8)
    figure = figures.samples(pixels[0], pixels[1:])
    mosaic = np.asarray(figure.axes[0].images[0].get_array())
    for row, column in itertools.product(range(3), range(5)):
        tile = mosaic[30 * row : 30 * row + 30, 30 * column : 30 * column + 30]
        np.testing.assert_array_equal(tile[1:29, 1:29], pixels[row, column])
    assert {"original", "draw 1", "draw 2"} <= set(texts(figure))


@pytest.mark.parametrize("epochs", [1, 10])
@pytest.mark.parametrize("seeds", [1, 3])
def test_curves_show_means_and_range(seeds: int, epochs: int) -> None:
    table = curve_table(seeds, epochs, VARIANTS)
    figure = figures.curves(table, "Validation images")
    loss = table.pivot_table(index="epoch", columns="series", values="loss")
    for line, variant in zip(figure.axes[0].lines, VARIANTS, strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), loss[variant])
        assert line.get_marker() != "None"
    band = figure.axes[1].collections[0].get_datalim(figure.axes[1].transData)
    error = 1 - table.loc[table["series"] == BN, "accuracy"]
    np.testing.assert_allclose([band.ymin, band.ymax], [error.min(), error.max()])
    said = texts(figure)
    assert {"Validation images", "Batch norm + L1", "Group norm", "Layer norm"} <= set(said)
    assert any("mean of 3 seeds; band: lowest to highest" in text for text in said) == (seeds == 3)
    assert {str(epoch) for epoch in range(1, epochs + 1)} <= set(said)


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 0.0975, 0.98, 0.99301, 0.99305, 0.9999, 1.0]), min_size=1))
def test_curves_keep_every_accuracy_in_sight(accuracies: list[float]) -> None:
    table = pd.DataFrame({"accuracy": accuracies, "series": GN, "seed": 0, "loss": 0.02})
    axes = figures.curves(table.assign(epoch=table.index + 1), "Test").axes[1]
    bottom, top = axes.get_ylim()
    drawn = np.asarray(axes.lines[0].get_ydata())
    np.testing.assert_allclose(drawn, np.maximum(1 - np.array(accuracies), 1e-4))
    assert (bottom > drawn).all(), "a better accuracy is higher up"
    assert (drawn > top).all()
    ticks = [tick for tick in axes.get_yticks() if top <= tick <= bottom]
    assert len(ticks) >= 2
    labels = [axes.yaxis.get_major_formatter()(tick) for tick in ticks]
    assert [float(label.removesuffix(" %")) for label in labels] == pytest.approx(
        [100 * (1 - tick) for tick in ticks], abs=1e-9
    )


def test_more_variants_than_colours_stay_apart() -> None:
    table = curve_table(1, 2, {f"v{i}": 0.99 for i in range(12)})
    lines = figures.curves(table, "Test").axes[0].lines
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 12
    assert [line.get_label() for line in lines] == [f"v{i}" for i in range(12)]


def test_final_accuracies_show_each_seed_and_the_interval() -> None:
    final = curve_table(3, 1, VARIANTS)
    means = {"mean": [0.9935, 0.99406, 0.9908], "at": range(3), "series": list(VARIANTS)}
    ends = {"low": [0.9928, 0.9938, np.nan], "high": [0.9942, 0.9943, np.nan]}
    figure = figures.final_accuracies(final.assign(at=-0.2), pd.DataFrame(means | ends))
    assert {
        "Batch norm + L1\n99.35 % [99.28, 99.42]",
        "Group norm\n99.41 % [99.38, 99.43]",
        "Layer norm\n99.08 %",
    } <= set(texts(figure))
    seeds, mean = figure.axes[0].lines[:2]
    own = final.loc[final["series"] == BN, "accuracy"]
    np.testing.assert_allclose(np.asarray(seeds.get_xdata()), 100 * own)
    np.testing.assert_allclose(np.asarray(mean.get_xdata()), 99.35)
    assert any("95 % interval over seeds and images" in text for text in texts(figure))


def test_misclassified_images_are_annotated_and_may_be_few() -> None:
    images = {index: np.full((28, 28), index, np.uint8) for index in WRONG["index"]}
    figure = figures.misclassified_images(WRONG, images, LN, MNIST)
    assert {
        "true 9, predicted 4\np = 0.40, 3 seeds",
        "true 3, predicted 5\np = 0.80, 2 seeds",
        "true 7, predicted 1\np = 0.80, 2 seeds",
        "true 4, predicted 9\np = 0.90, 1 seed",
    } <= set(texts(figure))
    assert any("Layer norm" in text for text in texts(figure))
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert [int(np.max(image)) for image in shown if image is not None] == [20, 30, 40, 50]
    assert len(figure.axes) == 10
    assert texts(figures.misclassified_images(WRONG.head(0), {}, LN, MNIST))


def test_confusion_matrices_colour_errors_only_on_one_scale() -> None:
    table = confusion_table(3)
    shuffled = table.groupby("series", sort=False).sample(frac=1, random_state=0)
    figure = figures.confusion_matrices(shuffled, MNIST)
    most = table.loc[table["true"] != table["predicted"], "count"].max()
    for axes, variant in zip(figure.axes, VARIANTS, strict=True):
        shown = axes.images[0].get_array()
        assert isinstance(shown, np.ma.MaskedArray)
        np.testing.assert_array_equal(shown.mask, np.eye(10, dtype=bool))
        assert axes.images[0].get_clim() == (0, most)
        rows = table[table["series"] == variant]
        written = {(text.get_position(), text.get_text()) for text in axes.texts}
        assert written == {
            ((row["predicted"], row["true"]), str(row["count"]))
            for row in rows.to_dict("records")
            if row["count"]
        }
        errors = rows.loc[rows["true"] != rows["predicted"], "count"].sum()
        assert axes.get_title(loc="left") == (
            f"{variant}: {errors:,} errors in {rows['count'].sum():,}"
        )


def test_there_are_as_many_rows_in_a_confusion_matrix_as_classes() -> None:
    pairs = itertools.product((0, 1, 2), repeat=2)
    table = pd.DataFrame([(GN, *pair, 5) for pair in pairs], columns=confusion_table(1).columns)
    figure = figures.confusion_matrices(table, MNIST._replace(noun="garment"))
    assert {"Which test garments are taken for which", "Group norm: 30 errors in 45"} <= set(
        texts(figure)
    )


def test_classes_have_their_names_and_of_very_many_nothing_is_written() -> None:
    figure = figures.confusion_matrices(confusion_table(1), FASHION_MNIST)
    assert {"Ankle boot", "T-shirt/top"} <= set(texts(figure))
    pairs = itertools.product(range(41), repeat=2)
    table = pd.DataFrame([(GN, *pair, 5) for pair in pairs], columns=confusion_table(1).columns)
    many = MNIST._replace(names=tuple(map(str, range(41))))
    (axes,) = figures.confusion_matrices(table, many).axes
    assert not axes.texts
    assert not axes.get_xticklabels()


@pytest.mark.parametrize("variants", [1, 4])
def test_any_number_of_confusion_matrices_fits(variants: int) -> None:
    one = confusion_table(1).head(100)
    table = pd.concat([one.assign(series=f"v{i}") for i in range(variants)])
    perfect = table.assign(count=table["count"] * (table["true"] == table["predicted"]))
    said = texts(figures.confusion_matrices(perfect, MNIST))
    assert sum("0 errors in 9,800" in text for text in said) == variants


def test_layer_parameters_show_every_count_and_the_totals() -> None:
    figure = figures.layer_parameters(parameter_table())
    said = texts(figure)
    assert {"Batch norm + L1: 7,946", "Group norm: 7,946", "Layer norm: 55,546"} <= set(said)
    numbers = [text.get_text().strip() for text in figure.axes[0].texts]
    assert numbers[:5] == ["108", "24", "16,224", "1,728", "32"], "equal neighbours share one"
    layers = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert layers == parameter_table()["layer"].unique().tolist()


if __name__ == "__main__":
    drawn = digests(draw_all(3, 10))
    assert "matplotlib.pyplot" not in sys.modules, "drawing needs no global state"
    assert "torch" not in sys.modules
    print(json.dumps(drawn))
