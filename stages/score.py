"""Stages `score_*`: the trials of a study on the test images, one row per trial."""

import math
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from normlab import files, params, studies
from normlab.data import datasets
from normlab.evidence import evaluation
from normlab.evidence.evaluation import Images, Measured, Model
from normlab.network import networks

PARAMS = Path("params.yaml")
OWN = Path("studies/params.yaml")
SPLIT = Path("data/test")
MODELS = Path("models/studies")
TABLES = Path("reports/studies")

# Exponents of ten in quarters: from what is as good as zero to beyond 1.
EDGES = [quarters / 4 for quarters in range(-32, 5)]


def main(study: str) -> None:
    """Measure the last weights of every trial of `study`."""
    base, own = params.load(PARAMS), params.load(OWN, studies.Settings)
    history = files.read_table(TABLES / f"{study}_history.csv", dtype={"setting": str})
    trials, trained = [], []
    for setting in studies.grid(study, own, base):
        of_network = {k: setting.value(base, k) for k in networks.settings(setting.variant)}
        for seed, epochs in history[history["setting"] == setting.name].groupby("seed"):
            path = MODELS / study / setting.name / f"seed{seed}.safetensors"
            model = evaluation.read_model(
                path, setting.variant, of_network, int(str(seed)), len(epochs)
            )
            trials.append((setting.name, epochs))
            trained.append(model)
    test = Images(*datasets.read_split(SPLIT, "test"))
    measured = evaluation.measure_all(trained, test)

    rows = [
        row(name, epochs, model, result, before="train" if study == "replication" else "val")
        for (name, epochs), model, result in zip(trials, trained, measured, strict=True)
    ]
    files.write_table(TABLES / f"{study}.csv", pd.DataFrame(rows))
    if study == "l1":
        files.write_table(TABLES / "l1_weights.csv", weights([n for n, _ in trials], trained))


def row(
    name: str, epochs: pd.DataFrame, model: Model, result: Measured, before: str
) -> dict[str, Any]:
    """Sum up a trial.

    Validation figures are named for what they are of: the replication's are of training images,
    and there `overstatement` is by how much they are better than those of test images.
    """
    last = epochs.iloc[-1]
    first_half = epochs["val_accuracy"].iloc[: math.ceil(len(epochs) / 2)]
    network = networks.build(model.variant, **model.settings)
    figures = {
        "setting": name,
        "variant": model.variant,
        "seed": model.seed,
        "parameters": sum(networks.parameters_by_layer(network).values()),
        "small_weights": evaluation.small_share(model),
        f"early_{before}_accuracy": mean(first_half.tolist()),
        f"{before}_loss": last["val_loss"],
        f"{before}_accuracy": last["val_accuracy"],
        "test_loss": result.loss,
        "test_accuracy": result.accuracy,
    }
    if before == "train":
        figures["overstatement"] = last["val_accuracy"] - result.accuracy
    return figures


def weights(names: list[str], trained: list[Model]) -> pd.DataFrame:
    """Share of each setting's parameters by magnitude, over all its trials."""
    tables = []
    for name in dict.fromkeys(names):
        chosen = [model for n, model in zip(names, trained, strict=True) if n == name]
        shares = evaluation.magnitudes(chosen, EDGES)
        columns = {"setting": name, "low": EDGES[:-1], "high": EDGES[1:], "share": shares}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)
