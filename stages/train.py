"""Stages `train_*`: one variant, trained once per seed on the training split alone."""

from normlab import cluster

if __name__ == "__main__":
    # First of all, since importing torch takes most of a stage's start.
    cluster.prepare("stages.train")

import shutil
import sys
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors.numpy import save_file
from tqdm import tqdm

from normlab import augment, mnist, networks, params, training
from normlab.errors import reported
from normlab.params import Params
from stages import checkpoints, files

PARAMS = Path("params.yaml")
SPLIT = Path("data/train")
MODELS = Path("models")
HISTORIES = Path("reports/history")
CHECKPOINTS = Path("checkpoints")


def main(variant: str) -> None:
    """Train `variant` with every seed; write each epoch's weights and the history."""
    settings = params.load(PARAMS)
    seeds = settings.seeds
    recipe = recipe_of(variant, settings)
    data = read_data(settings)

    with cluster.connect(len(seeds)) as client:
        device, dtype = cluster.call(client, training.resolve, recipe.device, recipe.precision)
        machine = f"{device}, {dtype}"
        tqdm.write(f"{variant}: {len(seeds)} seeds on {machine}", sys.stderr)
        saved = checkpoints.folder(CHECKPOINTS, recipe, data, machine)
        states = {seed: checkpoints.load_states(saved, seed, recipe.epochs) for seed in seeds}
        begun = [trial[-1] if trial else training.start(recipe, s) for s, trial in states.items()]
        chains = [(state, recipe.epochs - state.epoch) for state in begun]
        done = sum(state.epoch for state in begun)
        with tqdm(
            desc=variant, total=len(seeds) * recipe.epochs, initial=done, unit="epoch"
        ) as bar:
            step = partial(training.train_epoch, recipe)
            for state in cluster.iterate(client, step, chains, data):
                states[state.seed].append(state)
                checkpoints.save_state(saved, state)
                accuracy = f"{state.row['val_accuracy']:.2%} of validation"
                bar.set_postfix_str(f"seed {state.seed} epoch {state.epoch}: {accuracy}", False)
                bar.update()

    trials = [sorted(states[seed], key=lambda state: state.epoch) for seed in seeds]
    with files.directory(MODELS / variant) as directory:
        for state in (state for trial in trials for state in trial):
            path = directory / f"seed{state.seed}" / f"epoch{state.epoch:02d}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_file(state.weights, path)
    history = pd.DataFrame([state.row for trial in trials for state in trial])
    history.insert(0, "variant", variant)
    files.write_table(HISTORIES / f"{variant}.csv", history)
    shutil.rmtree(CHECKPOINTS / variant)


def recipe_of(variant: str, settings: Params) -> training.Recipe:
    """Take from the parameters what this variant's trials depend on."""
    return training.Recipe(
        variant=variant,
        settings={name: getattr(settings, name) for name in networks.settings(variant)},
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        lr_schedule=settings.lr_schedule,
        lr_step_epochs=settings.lr_step_epochs,
        lr_step_factor=settings.lr_step_factor,
        l1_lambda=settings.l1_lambda if variant.endswith("_l1") else None,
        augmentation=augment.Ranges(
            rotation=settings.affine_rotation,
            translation=settings.affine_translation,
            scale=(settings.affine_scale[0], settings.affine_scale[1]),
            shear=settings.affine_shear,
        ),
        device=settings.device,
        precision=settings.precision,
    )


def read_data(settings: Params) -> training.Data:
    """Read the training split and carve the validation images from it."""
    images, labels = mnist.read_split(SPLIT, "train")
    train, val = mnist.carve(len(labels), settings.val_size, settings.train_size)
    return training.Data(images[train], labels[train], images[val], labels[val])


if __name__ == "__main__":
    with reported():
        main(sys.argv[1])
