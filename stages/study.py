"""Stages named for a study: train all its settings, once per seed, on the training split alone."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors.numpy import save_file

from normlab import files, params, studies
from normlab.data import datasets
from normlab.training import trials
from normlab.training.trial import Data

PARAMS = Path("params.yaml")
OWN = Path("studies/params.yaml")
MODELS = Path("models/studies")
TABLES = Path("reports/studies")
CHECKPOINTS = Path("checkpoints/studies")


def main(study: str) -> None:
    """Train the trials of `study`; write their last weights and the history of every epoch."""
    base, own = params.load(PARAMS), params.load(OWN, studies.Settings)
    settings = studies.grid(study, own, base)
    seeds = getattr(own, f"{study}_seeds")
    recipes = [trials.recipe_of(s.variant, partial(s.value, base)) for s in settings]
    planned = [
        trials.Trial(setting.name, recipe, seed)
        for setting, recipe in zip(settings, recipes, strict=True)
        for seed in seeds
    ]
    kept = CHECKPOINTS / study
    ran = trials.run(study, planned, read_data(study, own, base), kept)

    rows = []
    with files.directory(MODELS / study) as directory:
        for trial, states in zip(planned, ran, strict=True):
            path = directory / trial.name / f"seed{trial.seed}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_file(states[-1].weights, path)
            rows += [
                {"setting": trial.name, "variant": trial.recipe.variant} | s.row for s in states
            ]
    files.write_table(TABLES / f"{study}_history.csv", pd.DataFrame(rows))
    shutil.rmtree(kept)


def read_data(study: str, own: studies.Settings, base: params.Params) -> Data:
    """Read the images of a study.

    The replication trains on all images and is measured on them again, as the reference did: its
    validation figures are of images it was trained on.
    """
    if study == "replication":
        images, labels = datasets.read_split(trials.SPLIT, "train")
        return Data(images, labels, images, labels)
    return trials.read_data(base.val_size, getattr(own, f"{study}_train_size"))
