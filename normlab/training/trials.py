"""What all training stages do: run trials on the cluster and keep each epoch as it comes."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from distributed import Client
from tqdm import tqdm

from normlab import files
from normlab.arms import Arm
from normlab.data import augment, datasets, validation
from normlab.data.validation import Part
from normlab.errors import InputError
from normlab.network import networks
from normlab.network.architecture import REFERENCE, Architecture
from normlab.training import chains, checkpoints, cluster, limits, machine, trial
from normlab.training.crew import Crew, Kind, say
from normlab.training.recipe import Data, Images, Recipe, State

SPLIT = Path("data/train")


class Trial(NamedTuple):
    """An arm's recipe, to be trained with a seed."""

    arm: Arm
    recipe: Recipe
    seed: int
    part: Part
    """Which images it learns from, and which it is measured on after every epoch."""


def run(trials: Sequence[Trial], images: Images, history: Path, kept: Path) -> list[list[State]]:
    """Train all trials; return the states of each after every epoch, in order.

    Parameters
    ----------
    trials
        Of one study, in the order of its tables.
    images
        The training split.
    history
        The table of all epochs that have ended, written anew after each: a training can be watched.
    kept
        A folder in which every epoch that ends is kept. What an interrupted run left there is not
        done again; who calls removes the folder when the outputs are written.
    """
    title, count = trials[0].arm.study, len(images.labels)
    parts = {planned.part for planned in trials}
    most = max(len(validation.train_val_split(count, *part)[0]) for part in parts)
    with cluster.connect(len(trials)) as client:
        at_once = _at_once(client, len(trials))
        asked = [planned.recipe for planned in trials], most, at_once
        workers = Crew(client, partial(kind_of, *asked))
        folders = _checkpoint_folders(workers, title, trials, images, kept)
        states = [
            checkpoints.load_states(folder, planned.seed, planned.recipe.epochs)
            for planned, folder in zip(trials, folders, strict=True)
        ]
        planned_chains = []
        steps = {(id(t.recipe), t.part): partial(train_epoch, t.recipe, t.part) for t in trials}
        for planned, before in zip(trials, states, strict=True):
            state = before[-1] if before else trial.start(planned.recipe, planned.seed)
            left = planned.recipe.epochs - state.epoch
            planned_chains.append((steps[id(planned.recipe), planned.part], state, left))
        total, done = sum(t.recipe.epochs for t in trials), sum(map(len, states))
        with tqdm(desc=title, total=total, initial=done, unit="epoch") as bar:
            names = [f"{t.arm.name} seed {t.seed}" for t in trials]
            for which, state in chains.run_chains(client, planned_chains, images, workers, names):
                checkpoints.save_state(folders[which], state)
                states[which] = sorted([*states[which], state], key=lambda one: one.epoch)
                files.write_table(history, history_table(trials, states))
                bar.set_postfix_str(_progress(trials[which].arm, state), False)
                bar.update()
    files.write_table(history, history_table(trials, states))
    for planned, ended in zip(trials, states, strict=True):
        if line := trial.divergence(planned.recipe, ended[-1]):
            say(line)
    return states


def _at_once(client: Client, count: int) -> int:
    """Say how many of `count` trials the machine with most workers trains at a time."""
    hosts: Counter[str] = Counter()
    for address, threads in client.nthreads().items():
        hosts[address.rpartition(":")[0]] += threads
    return min(count, max(hosts.values(), default=1))


def _checkpoint_folders(
    workers: Crew, title: str, trials: Sequence[Trial], images: Images, kept: Path
) -> list[Path]:
    """Say what computes the trials; return where each one's checkpoints are."""
    recipes = _distinct([planned.recipe for planned in trials])
    kinds = workers.muster()
    names = ", ".join(dict.fromkeys(name for kind in kinds for name in kind.names))
    say(f"{title}: {len(trials)} trials on {names}")
    arithmetic = dict(zip(map(id, recipes), kinds[0].arithmetic, strict=True))
    digest = checkpoints.digest(images)
    return [
        checkpoints.folder(kept, t.recipe, t.part, digest, arithmetic[id(t.recipe)]) for t in trials
    ]


def _distinct(recipes: Sequence[Recipe]) -> list[Recipe]:
    return list({id(recipe): recipe for recipe in recipes}.values())


def kind_of(recipes: Sequence[Recipe], count: int, at_once: int) -> Kind:
    """Say what computes trials on the machine this runs on.

    Parameters
    ----------
    recipes
        Of each trial.
    count
        Images that a trial learns from, of the one with most.
    at_once
        How many trials a machine has to compute at a time.

    Raises
    ------
    InputError
        If it cannot compute them, or has too little memory.
    """
    if too_large := limits.what_does_not_fit(recipes, count, at_once):
        raise InputError(too_large)
    machines = [machine.resolve(recipe) for recipe in _distinct(recipes)]
    return Kind(tuple(m.arithmetic for m in machines), tuple(m.name for m in machines))


def _progress(arm: Arm, state: State) -> str:
    accuracy = f"{state.row['val_accuracy']:.2%}"
    return f"{arm.name} seed {state.seed} epoch {state.epoch}: {accuracy} of validation"


def history_table(trials: Sequence[Trial], states: Sequence[Sequence[State]]) -> pd.DataFrame:
    """Lay out the epochs that have ended as a table, a row for each.

    Returns
    -------
    DataFrame
        The columns that name the arm, and those of `trial.history_row`; trials in their order,
        epochs in theirs.
    """
    rows = [
        planned.arm.columns | state.row
        for planned, ended in zip(trials, states, strict=True)
        for state in ended
    ]
    return pd.DataFrame(rows)


def recipe_of(
    variant: str,
    value: Callable[[str], Any],
    architecture: Architecture = REFERENCE,
    **network: object,
) -> Recipe:
    """Make a variant's recipe from the parameters that its trials depend on, and no others.

    Parameters
    ----------
    variant
        A key of `networks.VARIANTS`.
    value
        Gives the value of a parameter by its name in `params.yaml`.
    architecture
        That the data ask for.
    **network
        What else `networks.build` is to be told.

    Raises
    ------
    InputError
        If there is no such variant.
    """
    if variant not in networks.VARIANTS:
        raise InputError(f"variant: got {variant}, allowed: {', '.join(networks.VARIANTS)}")
    known = networks.VARIANTS[variant]
    scale = value("affine_scale")
    return Recipe(
        variant=variant,
        norm_params=known.values(value) | network,
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
        architecture=architecture,
    )


def train_epoch(recipe: Recipe, part: Part, state: State, images: Images) -> State:
    """Train for one epoch on a part of the images, as `trial.train_epoch` does."""
    return trial.train_epoch(recipe, state, data_of(part, images))


def data_of(part: Part, images: Images) -> Data:
    """Take from the training split what a trial learns from and what it is measured on.

    Raises
    ------
    InputError
        If there are too few.
    """
    train, val = validation.train_val_split(len(images.labels), *part)
    return Data(images.images[train], images.labels[train], images.images[val], images.labels[val])


def read_architecture(split: Path = SPLIT) -> Architecture:
    """Make the architecture that the training split asks for."""
    return REFERENCE._replace(**datasets.read(split).asks)


def read_images(split: Path = SPLIT) -> Images:
    """Read the training split."""
    return Images(*datasets.read_split(split, "train"))
