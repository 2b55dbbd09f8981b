"""Stages `train_*`: one variant, trained once per seed on the training split alone."""

import shutil
from functools import partial
from pathlib import Path

from safetensors.numpy import save

from normlab import files, params
from normlab.arms import MAIN, Arm
from normlab.data.validation import Part
from normlab.training import trials

PARAMS = Path("params.yaml")
MODELS = Path("models")
HISTORIES = Path("reports/history")
CHECKPOINTS = Path("checkpoints")


def main(variant: str) -> None:
    """Train `variant` with every seed; write each epoch's weights and the history."""
    settings = params.load(PARAMS)
    architecture = trials.read_architecture()
    recipe = trials.recipe_of(variant, partial(getattr, settings), architecture)
    part = Part(settings.val_size, settings.train_size)
    arm = Arm(MAIN, variant, {})
    planned = [trials.Trial(arm, recipe, seed, part) for seed in settings.seeds]
    history, kept = HISTORIES / f"{variant}.csv", CHECKPOINTS / variant
    ran = trials.run(planned, trials.read_images(), history, kept)
    with files.directory(MODELS / variant) as directory:
        for state in [state for states in ran for state in states]:
            path = directory / f"seed{state.seed}" / f"epoch{state.epoch:02d}.safetensors"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(save(state.weights))
    shutil.rmtree(kept)
