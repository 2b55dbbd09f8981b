"""Stage `plot`: the figures, from the tables of the other stages."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from normlab import files, params
from normlab.data import augment, datasets
from normlab.report import figures

PARAMS = Path("params.yaml")
SPLIT = Path("data/train")
HISTORIES = Path("reports/history")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
REPORTS = Path("reports")
FIGURES = Path("reports/figures")

SAMPLES, DRAWS, SAMPLES_SEED = 12, 4, 0


def main(*variants: str) -> None:
    """Draw all figures for `variants`, in that order."""
    settings = params.load(PARAMS)
    ranges = augment.Ranges(
        rotation=settings.affine_rotation,
        translation=settings.affine_translation,
        scale=(settings.affine_scale[0], settings.affine_scale[1]),
        shear=settings.affine_shear,
    )
    test_curves = files.read_table(REPORTS / "test_curves.csv")
    last = test_curves.groupby("variant")["epoch"].transform("max")
    wrong = files.read_table(REPORTS / "misclassified.csv")
    images = files.read_images(MISCLASSIFIED_IMAGES)
    drawn = {
        "samples": figures.samples(*samples(ranges)),
        "test_curves": figures.curves(test_curves, "Test images"),
        "val_curves": figures.curves(validation_curves(variants), "Validation images"),
        "accuracies": figures.final_accuracies(
            test_curves[test_curves["epoch"] == last], intervals(variants)
        ),
        "confusion": figures.confusion_matrices(files.read_table(REPORTS / "confusion.csv")),
        "parameters": figures.layer_parameters(files.read_table(REPORTS / "parameters.csv")),
    }
    for variant in variants:
        rows = wrong[wrong["variant"] == variant]
        drawn[f"misclassified_{variant}"] = figures.misclassified_digits(rows, images, variant)
    with files.directory(FIGURES) as directory:
        for name, figure in drawn.items():
            (directory / f"{name}.png").write_bytes(figures.png_bytes(figure))


def samples(ranges: augment.Ranges) -> tuple[figures.Images, figures.Images]:
    """Take some training images and draw random affine maps of each."""
    images, _ = datasets.read_split(SPLIT, "train")
    originals = images[:SAMPLES]
    repeated = np.tile(originals, (DRAWS, 1, 1))
    maps = augment.draw(np.random.default_rng(SAMPLES_SEED), len(repeated), ranges)
    sources = augment.source_pixels(maps, augment.grid()).astype(np.int64)
    pixels = np.take_along_axis(augment.pad(repeated), sources, axis=1)
    return originals, pixels.reshape(DRAWS, *originals.shape)


def validation_curves(variants: Sequence[str]) -> pd.DataFrame:
    """Gather validation loss and accuracy of all epochs, in the form of `test_curves.csv`."""
    tables = [files.read_table(HISTORIES / f"{v}.csv") for v in variants]
    return pd.concat(tables).rename(columns={"val_loss": "loss", "val_accuracy": "accuracy"})


def intervals(variants: Sequence[str]) -> pd.DataFrame:
    """Mean test accuracy of every variant with its interval, from the metrics."""
    metrics = files.read_json(REPORTS / "metrics.json")
    columns = {"accuracy": "mean", "accuracy_low": "low", "accuracy_high": "high"}
    rows = [
        {new: metrics[v][old] for old, new in columns.items()} | {"variant": v} for v in variants
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(columns.values(), float))
