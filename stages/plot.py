"""Stage `plot`: the figures, from the tables of the other stages."""

from pathlib import Path

import numpy as np
import pandas as pd

from normlab import files, params
from normlab.data import augment, datasets
from normlab.report import figure_tables, figures
from normlab.report.figure_tables import READ, SUMMARY, named

PARAMS = Path("params.yaml")
SPLIT = Path("data/train")
HISTORIES = Path("reports/history")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
REPORTS = Path("reports")
FIGURES = Path("reports/figures")

SAMPLES, DRAWS, SAMPLES_SEED = 12, 4, 0


def main() -> None:
    """Draw all figures, the variants in the order of the summary and by the names it gives them."""
    settings = params.load(PARAMS)
    ranges = augment.Ranges(
        rotation=settings.affine_rotation,
        translation=settings.affine_translation,
        scale=(settings.affine_scale[0], settings.affine_scale[1]),
        shear=settings.affine_shear,
    )
    summary = figure_tables.bounded(files.read_table(REPORTS / "summary.csv", SUMMARY))
    labels = dict(zip(summary["variant"], summary["label"], strict=True))
    curves, confusion, parameters, wrong = (
        named(files.read_table(REPORTS / f"{name}.csv", READ[name]), summary)
        for name in ("test_curves", "confusion", "parameters", "misclassified")
    )
    histories = pd.concat(
        files.read_table(HISTORIES / f"{variant}.csv", READ["history"]) for variant in labels
    )
    validation = named(histories, summary).rename(
        columns={"val_loss": "loss", "val_accuracy": "accuracy"}
    )
    final = figure_tables.after_last_epoch(curves)
    dataset = datasets.read(SPLIT)
    images = files.read_images(MISCLASSIFIED_IMAGES, wrong["index"], dataset.side)
    drawn = {
        "samples": figures.samples(*samples(ranges)),
        "test_curves": figures.curves(curves, "Test images"),
        "val_curves": figures.curves(validation, "Validation images"),
        "accuracies": figures.final_accuracies(
            *figure_tables.accuracies(final, summary, "accuracy")
        ),
        "confusion": figures.confusion_matrices(confusion, dataset),
        "parameters": figures.layer_parameters(parameters),
    }
    for variant, label in labels.items():
        rows = wrong[wrong["series"] == label]
        drawn[f"misclassified_{variant}"] = figures.misclassified_images(
            rows, images, label, dataset
        )
    with files.directory(FIGURES) as directory:
        for name, figure in drawn.items():
            (directory / f"{name}.png").write_bytes(figures.png_bytes(figure))


def samples(ranges: augment.Ranges) -> tuple[figures.Images, figures.Images]:
    """Take some training images and draw random affine maps of each."""
    images, _ = datasets.read_split(SPLIT, "train")
    originals = images[:SAMPLES]
    repeated = np.tile(originals, (DRAWS, 1, 1))
    side = images.shape[1]
    maps = augment.draw(np.random.default_rng(SAMPLES_SEED), len(repeated), ranges, side)
    sources = augment.source_pixels(maps, augment.grid(side)).astype(np.int64)
    pixels = np.take_along_axis(augment.pad(repeated), sources, axis=1)
    return originals, pixels.reshape(DRAWS, *originals.shape)
