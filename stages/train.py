"""Stages `train_*`: one variant, trained once per seed on the training split alone."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors.numpy import save_file

from normlab import files, params
from normlab.training import trials

PARAMS = Path("params.yaml")
MODELS = Path("models")
HISTORIES = Path("reports/history")
CHECKPOINTS = Path("checkpoints")


def main(variant: str) -> None:
    """Train `variant` with every seed; write each epoch's weights and the history."""
    settings = params.load(PARAMS)
    recipe = trials.recipe_of(variant, partial(getattr, settings))
    data = trials.read_data(settings.val_size, settings.train_size)
    kept = CHECKPOINTS / variant
    planned = [trials.Trial("", recipe, seed) for seed in settings.seeds]
    states = [state for trial in trials.run(variant, planned, data, kept) for state in trial]

    with files.directory(MODELS / variant) as directory:
        for state in states:
            path = directory / f"seed{state.seed}" / f"epoch{state.epoch:02d}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_file(state.weights, path)
    history = pd.DataFrame([state.row for state in states])
    history.insert(0, "variant", variant)
    files.write_table(HISTORIES / f"{variant}.csv", history)
    shutil.rmtree(kept)
