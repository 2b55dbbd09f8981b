"""What all training stages do: run trials on the cluster and keep each epoch as it comes."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from normlab.data import augment, datasets
from normlab.network import networks
from normlab.training import checkpoints, cluster, trial
from normlab.training.trial import Data, Recipe, State

SPLIT = Path("data/train")


class Trial(NamedTuple):
    """A recipe to be trained with a seed, and what the progress bar calls it."""

    name: str
    recipe: Recipe
    seed: int


def run(title: str, trials: Sequence[Trial], data: Data, kept: Path) -> list[list[State]]:
    """Train all trials; return the states of each after every epoch.

    An epoch that ends is kept in the folder `kept`. What an interrupted run left there is not done
    again; who calls removes the folder when the outputs are written.
    """
    with cluster.connect(len(trials)) as client:
        recipes = {id(trial.recipe): trial.recipe for trial in trials}
        machines = {
            key: cluster.call(client, partial(trial.resolve, recipe))
            for key, recipe in recipes.items()
        }
        names = ", ".join(dict.fromkeys(machine.name for machine in machines.values()))
        tqdm.write(f"{title}: {len(trials)} trials on {names}", sys.stderr)
        steps = {key: partial(trial.train_epoch, recipe) for key, recipe in recipes.items()}
        folders = {
            key: checkpoints.folder(kept, recipe, data, machines[key].arithmetic)
            for key, recipe in recipes.items()
        }
        states, chains = [], []
        for _, recipe, seed in trials:
            before = checkpoints.load_states(folders[id(recipe)], seed, recipe.epochs)
            state = before[-1] if before else trial.start(recipe, seed)
            states.append(before)
            chains.append((steps[id(recipe)], state, recipe.epochs - state.epoch))
        total, done = sum(t.recipe.epochs for t in trials), sum(map(len, states))
        with tqdm(desc=title, total=total, initial=done, unit="epoch") as bar:
            for which, state in cluster.run_chains(client, chains, data):
                states[which].append(state)
                checkpoints.save_state(folders[id(trials[which].recipe)], state)
                accuracy = f"{state.row['val_accuracy']:.2%} of validation"
                where = f"{trials[which].name} seed {state.seed} epoch {state.epoch}"
                bar.set_postfix_str(f"{where.strip()}: {accuracy}", False)
                bar.update()
    return [sorted(trial, key=lambda state: state.epoch) for trial in states]


def recipe_of(variant: str, value: Callable[[str], Any]) -> Recipe:
    """Make a variant's recipe from the parameters that its trials depend on, and no others.

    Parameters
    ----------
    variant
        A key of `networks.NORMALIZATIONS`.
    value
        Gives the value of a parameter by its name in `params.yaml`.
    """
    scale = value("affine_scale")
    return Recipe(
        variant=variant,
        settings={name: value(name) for name in networks.settings(variant)},
        epochs=value("epochs"),
        batch_size=value("batch_size"),
        lr=value("lr"),
        momentum=value("momentum"),
        nesterov=value("nesterov"),
        lr_schedule=value("lr_schedule"),
        lr_step_epochs=value("lr_step_epochs"),
        lr_step_factor=value("lr_step_factor"),
        l1_lambda=value("l1_lambda") if variant.endswith("_l1") else None,
        augmentation=augment.Ranges(
            rotation=value("affine_rotation"),
            translation=value("affine_translation"),
            scale=(scale[0], scale[1]),
            shear=value("affine_shear"),
        ),
        device=value("device"),
        precision=value("precision"),
    )


def read_data(val_size: int, train_size: int | None) -> Data:
    """Read the training split and carve the validation images from it."""
    images, labels = datasets.read_split(SPLIT, "train")
    train, val = datasets.train_val_split(len(labels), val_size, train_size)
    return Data(images[train], labels[train], images[val], labels[val])
