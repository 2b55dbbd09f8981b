"""Stages `score@*`: the trials of a study on images that they have not learnt from.

Paths are from `studies/`, a DVC project of its own.
"""

from functools import partial
from pathlib import Path

from normlab import files, params, studies
from normlab.data import datasets
from normlab.evidence import evaluation, summaries, tables
from normlab.evidence.evaluation import LabelledImages
from normlab.network import networks
from normlab.network.architecture import REFERENCE

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
DATA = Path("data")
MODELS = Path("models")
TABLES = Path("reports")

HISTORY = "study variant arm seed epoch val_loss val_accuracy weights"
"""Columns that are needed."""


def main(study: str) -> None:
    """Score the last weights of every trial of `study`; write a row per trial and a summary."""
    base, own = params.load(PARAMS), studies.load(OWN)
    split = DATA / own[study].dataset
    architecture = REFERENCE._replace(**datasets.read(split / "test").asks)
    history = files.read_table(TABLES / f"{study}_history.csv", HISTORY)
    planned, models, histories = studies.planned(own, study, base), [], []
    for arm, seed, _ in planned:
        value = partial(arm.value, base)
        norm_params = networks.VARIANTS[arm.variant].values(value) | arm.network
        epochs = history[(history["arm"] == arm.name) & (history["seed"] == seed)]
        path = MODELS / study / arm.name / f"seed{seed}.safetensors"
        trial = seed, len(epochs), epochs["weights"].iloc[-1]
        models.append(evaluation.read_model(path, arm, norm_params, architecture, trial))
        histories.append(epochs)
    scored = evaluation.score_apart(
        models,
        [trial.part for trial in planned],
        LabelledImages(*datasets.read_split(split / "test", "test")),
        LabelledImages(*datasets.read_split(split / "train", "train")),
        seen=own[study].folds,
    )
    table = tables.study_scores(models, scored, histories)
    files.write_table(TABLES / f"{study}.csv", table)
    summary = summaries.study_summary([model.arm for model in models], table)
    files.write_table(TABLES / f"{study}_summary.csv", summary)
    files.write_table(TABLES / f"{study}_weights.csv", tables.weights(models))
