"""Stage `evaluate`: the one stage that sees test images. Scores, compares and explains."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save

from normlab import files, params
from normlab.arms import MAIN, Arm
from normlab.data import datasets
from normlab.evidence import evaluation, summaries, tables
from normlab.evidence.evaluation import LabelledImages, TrainedModel
from normlab.evidence.tables import Scored
from normlab.network import networks
from normlab.network.architecture import REFERENCE, Architecture

PARAMS = Path("params.yaml")
SPLIT = Path("data/test")
MODELS = Path("models")
HISTORIES = Path("reports/history")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
REPORTS = Path("reports")

HISTORY = "seed epoch val_accuracy weights"
"""Columns that are needed."""


def main() -> None:
    """Score the models of all variants; write metrics, tables and misclassified images."""
    settings = params.load(PARAMS)
    dataset = datasets.read(SPLIT)
    architecture = REFERENCE._replace(**dataset.asks)
    histories = {v: files.read_table(HISTORIES / f"{v}.csv", HISTORY) for v in networks.VARIANTS}
    models = [
        model
        for variant, rows in histories.items()
        for model in read_models(variant, rows, settings, architecture)
    ]
    test = LabelledImages(*datasets.read_split(SPLIT, "test"))
    scored = list(map(Scored, models, evaluation.score_all(models, test)))
    last = {variant: rows["epoch"].max() for variant, rows in histories.items()}
    final = [one for one in scored if one.model.epoch == last[one.model.arm.variant]]
    first_of_each = {one.model.arm.variant: one.model for one in reversed(final)}

    summary = summaries.main_summary(final, histories, test)
    wrong = tables.misclassified(final, test)
    index = np.unique(wrong["index"])
    for name, table in {
        "test_curves": tables.test_curves(scored),
        "summary": summary,
        "comparisons": summaries.comparisons(final, test),
        "confusion": tables.confusion(final, test, dataset.classes),
        "parameters": tables.parameters([first_of_each[v] for v in histories]),
        "misclassified": wrong,
    }.items():
        files.write_table(REPORTS / f"{name}.csv", table)
    files.write(MISCLASSIFIED_IMAGES, save({"index": index, "images": test.images[index]}))
    files.write_metrics(REPORTS / "metrics.json", summaries.headline(summary))


def read_models(
    variant: str, history: pd.DataFrame, settings: params.Params, architecture: Architecture
) -> list[TrainedModel]:
    """Read the weights of every epoch of a variant's trials."""
    norm_params = networks.VARIANTS[variant].values(partial(getattr, settings))
    return [
        evaluation.read_model(
            MODELS / variant / f"seed{seed}" / f"epoch{epoch:02d}.safetensors",
            Arm(MAIN, variant, {}),
            norm_params,
            architecture,
            (seed, epoch, digest),
        )
        for seed, epoch, digest in history[["seed", "epoch", "weights"]].itertuples(index=False)
    ]
