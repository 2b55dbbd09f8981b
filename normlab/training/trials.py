"""What all training stages do: run trials on the cluster and keep each epoch as it comes."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from distributed import Client
from tqdm import tqdm

from normlab import files
from normlab.arms import Arm
from normlab.data import augment, datasets
from normlab.network import networks
from normlab.training import checkpoints, cluster, machine, trial
from normlab.training.recipe import Data, Recipe, State

SPLIT = Path("data/train")
TRAIN_EVAL = {"val_loss": "train_eval_loss", "val_accuracy": "train_eval_accuracy"}


class Trial(NamedTuple):
    """An arm's recipe, to be trained with a seed."""

    arm: Arm
    recipe: Recipe
    seed: int


def run(trials: Sequence[Trial], data: Data, history: Path, kept: Path) -> list[list[State]]:
    """Train all trials; return the states of each after every epoch, in order.

    Parameters
    ----------
    trials
        Of one study, in the order of its tables.
    data
        What they learn from and are measured on.
    history
        The table of all epochs that have ended, written anew after each: a training can be watched.
    kept
        A folder in which every epoch that ends is kept. What an interrupted run left there is not
        done again; who calls removes the folder when the outputs are written.
    """
    title = trials[0].arm.study
    with cluster.connect(len(trials)) as client:
        folders = _checkpoint_folders(client, title, trials, data, kept)
        states = [
            checkpoints.load_states(folder, planned.seed, planned.recipe.epochs)
            for planned, folder in zip(trials, folders, strict=True)
        ]
        chains = []
        steps = {id(t.recipe): partial(trial.train_epoch, t.recipe) for t in trials}
        for planned, before in zip(trials, states, strict=True):
            state = before[-1] if before else trial.start(planned.recipe, planned.seed)
            left = planned.recipe.epochs - state.epoch
            chains.append((steps[id(planned.recipe)], state, left))
        total, done = sum(t.recipe.epochs for t in trials), sum(map(len, states))
        with tqdm(desc=title, total=total, initial=done, unit="epoch") as bar:
            for which, state in cluster.run_chains(client, chains, data):
                checkpoints.save_state(folders[which], state)
                states[which] = sorted([*states[which], state], key=lambda one: one.epoch)
                files.write_table(history, history_table(trials, states))
                bar.set_postfix_str(_progress(trials[which].arm, state), False)
                bar.update()
    files.write_table(history, history_table(trials, states))
    return states


def _checkpoint_folders(
    client: Client, title: str, trials: Sequence[Trial], data: Data, kept: Path
) -> list[Path]:
    """Say what computes the trials; return where each one's checkpoints are."""
    recipes = {id(planned.recipe): planned.recipe for planned in trials}
    machines = {
        key: cluster.call(client, partial(machine.resolve, recipe))
        for key, recipe in recipes.items()
    }
    names = ", ".join(dict.fromkeys(found.name for found in machines.values()))
    tqdm.write(f"{title}: {len(trials)} trials on {names}", sys.stderr)
    folders = {
        key: checkpoints.folder(kept, recipe, data, machines[key].arithmetic)
        for key, recipe in recipes.items()
    }
    return [folders[id(planned.recipe)] for planned in trials]


def _progress(arm: Arm, state: State) -> str:
    accuracy = f"{state.row['val_accuracy']:.2%}"
    return f"{arm.name} seed {state.seed} epoch {state.epoch}: {accuracy} of validation"


def history_table(trials: Sequence[Trial], states: Sequence[Sequence[State]]) -> pd.DataFrame:
    """Lay out the epochs that have ended as a table, a row for each.

    Returns
    -------
    DataFrame
        Columns study, variant, the study's factors, and those of `trial.history_row`; trials in
        their order, epochs in theirs. Where trials are measured on the images they learn from,
        val_loss and val_accuracy are called train_eval_loss and train_eval_accuracy.
    """
    rows = [
        planned.arm.columns | state.row
        for planned, ended in zip(trials, states, strict=True)
        for state in ended
    ]
    table = pd.DataFrame(rows)
    return table.rename(columns=TRAIN_EVAL) if trials[0].arm.on_training_images else table


def recipe_of(variant: str, value: Callable[[str], Any]) -> Recipe:
    """Make a variant's recipe from the parameters that its trials depend on, and no others.

    Parameters
    ----------
    variant
        A key of `networks.VARIANTS`.
    value
        Gives the value of a parameter by its name in `params.yaml`.
    """
    known = networks.VARIANTS[variant]
    scale = value("affine_scale")
    return Recipe(
        variant=variant,
        norm_params={name: value(name) for name in known.params},
        epochs=value("epochs"),
        batch_size=value("batch_size"),
        lr=value("lr"),
        momentum=value("momentum"),
        nesterov=value("nesterov"),
        lr_schedule=value("lr_schedule"),
        lr_step_epochs=value("lr_step_epochs"),
        lr_step_factor=value("lr_step_factor"),
        l1_lambda=value("l1_lambda") if known.l1 else None,
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
    """Read the training split and set the validation images apart."""
    images, labels = datasets.read_split(SPLIT, "train")
    train, val = datasets.train_val_split(len(labels), val_size, train_size)
    return Data(images[train], labels[train], images[val], labels[val])


def read_all_data() -> Data:
    """Read the training split, all of it both to learn from and to be measured on."""
    images, labels = datasets.read_split(SPLIT, "train")
    return Data(images, labels, images, labels)
