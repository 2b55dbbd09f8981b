"""Stages `score@*`: the trials of a study on the test images.

Paths are from `studies/`, a DVC project of its own.
"""

from pathlib import Path

from normlab import files, params, studies
from normlab.data import datasets
from normlab.evidence import evaluation, summaries, tables
from normlab.evidence.evaluation import LabelledImages
from normlab.evidence.tables import Scored
from normlab.network import networks
from normlab.network.architecture import REFERENCE

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
SPLIT = Path("data/test")
MODELS = Path("models")
TABLES = Path("reports")


def main(study: str) -> None:
    """Score the last weights of every trial of `study`; write a row per trial and a summary."""
    base, own = params.load(PARAMS), params.load(OWN, studies.Settings)
    architecture = REFERENCE._replace(**datasets.read(SPLIT).asks)
    arms = studies.arms(study, own, base)
    measured = "train_eval" if arms[0].on_training_images else "val"
    needed = f"study variant seed epoch {measured}_loss {measured}_accuracy weights"
    history = files.read_table(TABLES / f"{study}_history.csv", needed)
    models, trials = [], []
    for arm in arms:
        known = networks.VARIANTS[arm.variant].params
        norm_params = {name: arm.value(base, name) for name in known} | arm.network
        for seed, epochs in tables.rows_of(arm, history).groupby("seed", sort=False):
            path = MODELS / study / arm.name / f"seed{seed}.safetensors"
            trials.append(epochs)
            trial = int(str(seed)), len(epochs), epochs["weights"].iloc[-1]
            models.append(evaluation.read_model(path, arm, norm_params, architecture, trial))
    test = LabelledImages(*datasets.read_split(SPLIT, "test"))
    scored = list(map(Scored, models, evaluation.score_all(models, test)))
    table = tables.study_scores(scored, trials)
    files.write_table(TABLES / f"{study}.csv", table)
    summary = summaries.study_summary([model.arm for model in models], table)
    files.write_table(TABLES / f"{study}_summary.csv", summary)
    files.write_table(TABLES / f"{study}_weights.csv", tables.weights(models))
