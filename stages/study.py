"""Stages named for a study: train all its arms, once per seed, on the training split alone.

Paths are from `studies/`, a DVC project of its own.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors.numpy import save

from normlab import files, params, studies
from normlab.arms import Arm
from normlab.errors import InputError
from normlab.params import Params
from normlab.studies import Studies
from normlab.training import trials
from normlab.training.recipe import Recipe

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
DATA = Path("data")
MODELS = Path("models")
TABLES = Path("reports")
CHECKPOINTS = Path("checkpoints")


def main(study: str) -> None:
    """Train the trials of `study`; write their last weights and the history of every epoch."""
    base, own = params.load(PARAMS), studies.load(OWN)
    split, arms = DATA / own[study].dataset / "train", studies.arms(own, study, base)
    recipes = {arm.name: recipe_of(arm, own, base, split) for arm in arms}
    planned = [
        trials.Trial(arm, recipes[arm.name], seed, part)
        for arm, seed, part in studies.planned(own, study, base)
        if not arm.trained_in
    ]
    history, kept = TABLES / f"{study}_history.csv", CHECKPOINTS / study
    ran = trials.run(planned, trials.read_images(split), history, kept)
    files.write_table(history, pd.concat(histories(history, arms, own, base)))
    with files.directory(MODELS / study) as directory:
        for trial, states in zip(planned, ran, strict=True):
            path = directory / trial.arm.name / f"seed{trial.seed}.safetensors"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(save(states[-1].weights))
        for arm in arms:
            if arm.trained_in:
                theirs = studies.origin(own, arm, base)
                shutil.copytree(MODELS / theirs.study / theirs.name, directory / arm.name)
    shutil.rmtree(kept)


def recipe_of(arm: Arm, own: Studies, base: Params, split: Path) -> Recipe:
    """Make an arm's recipe.

    Raises
    ------
    InputError
        If its trials are another study's and not trained by the same.
    """
    architecture, theirs = trials.read_architecture(split), studies.origin(own, arm, base)
    recipe, other = (
        trials.recipe_of(one.variant, partial(one.value, base), architecture, **one.network)
        for one in (arm, theirs)
    )
    images = [(own[one.study].dataset, one.value(base, "train_size")) for one in (arm, theirs)]
    if recipe != other or images[0] != images[1]:
        raise InputError(
            f"{OWN}: {arm.study}.arms.{arm.name}: got an arm trained otherwise than "
            f"{arm.trained_in}, allowed: the same data set, images and recipe"
        )
    return recipe


def histories(path: Path, arms: list[Arm], own: Studies, base: Params) -> Iterator[pd.DataFrame]:
    """Yield the epochs of each arm, by its own columns, whichever study has trained it."""
    for arm in arms:
        theirs = studies.origin(own, arm, base)
        source = TABLES / f"{theirs.study}_history.csv" if arm.trained_in else path
        table = files.read_table(source, "study variant arm seed epoch weights")
        rows = table[table["arm"] == theirs.name].drop(columns=[*theirs.columns])
        yield pd.DataFrame(arm.columns, index=rows.index).join(rows)
