"""Stages named for a study: train all its arms, once per seed, on the training split alone.

Paths are from `studies/`, a DVC project of its own.
"""

import shutil
from functools import partial
from pathlib import Path

from safetensors.numpy import save

from normlab import files, params, studies
from normlab.training import trials

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
MODELS = Path("models")
TABLES = Path("reports")
CHECKPOINTS = Path("checkpoints")


def main(study: str) -> None:
    """Train the trials of `study`; write their last weights and the history of every epoch."""
    base, own = params.load(PARAMS), params.load(OWN, studies.Settings)
    section, architecture = getattr(own, study), trials.read_architecture()
    planned = [
        trials.Trial(arm, recipe, seed)
        for arm in studies.arms(study, own, base)
        for recipe in [
            trials.recipe_of(arm.variant, partial(arm.value, base), architecture, **arm.network)
        ]
        for seed in studies.seeds(own, arm)
    ]
    if planned[0].arm.on_training_images:
        data = trials.read_all_data()
    else:
        data = trials.read_data(base.val_size, section.train_size)
    history, kept = TABLES / f"{study}_history.csv", CHECKPOINTS / study
    ran = trials.run(planned, data, history, kept)
    with files.directory(MODELS / study) as directory:
        for trial, states in zip(planned, ran, strict=True):
            path = directory / trial.arm.name / f"seed{trial.seed}.safetensors"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(save(states[-1].weights))
    shutil.rmtree(kept)
