"""The search behind the defaults of `params.yaml`: settings compared on validation images alone.

    python -m benchmarks.recipe    (after `dvc repro download`)

Compare lines of the same number of epochs, which take the same time. The seeds are not those of
the pipeline, and test images have no part in it.
"""

from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from normlab import params
from normlab.data.validation import Part
from normlab.training import cluster, trial, trials
from normlab.training.chains import run_chains
from stages import train

SEEDS = range(100, 104)
VARIANTS = ("bn_l1", "gn")
Settings = dict[str, Any]


def augmented(rotation: float, translation: float, scale: float, shear: float) -> Settings:
    """Parameters of an augmentation."""
    return {
        "affine_rotation": rotation,
        "affine_translation": translation,
        "affine_scale": [1 - scale, 1 + scale],
        "affine_shear": shear,
    }


MILD = augmented(5.0, 0.07, 0.1, 5.0)
MEDIUM = augmented(7.0, 0.1, 0.15, 5.0)
STRONG = augmented(10.0, 0.1, 0.2, 8.0)
SEARCHED: list[Settings] = [
    {"epochs": 12, "momentum": 0.9} | MEDIUM,
    {"epochs": 12, "momentum": 0.95} | MEDIUM,
    {"epochs": 12, "momentum": 0.97} | MEDIUM,
    {"epochs": 12, "momentum": 0.95} | MILD,
    {"epochs": 12, "momentum": 0.95} | STRONG,
    {"epochs": 12, "momentum": 0.95} | MEDIUM | {"affine_translation": 0.15},
    {"epochs": 18, "momentum": 0.95} | MEDIUM,
    {"epochs": 18, "momentum": 0.95} | STRONG,
]


def main() -> None:
    """Train with all settings, every variant with every seed; print a table."""
    defaults = params.load(train.PARAMS)
    data = trials.data_of(Part(defaults.val_size, defaults.train_size), trials.read_images())
    chains, trained = [], []
    for which, settings in enumerate(SEARCHED):
        changed = defaults.model_copy(update=settings)
        for variant in VARIANTS:
            recipe = trials.recipe_of(variant, partial(getattr, changed))
            step = partial(trial.train_epoch, recipe)
            chains += [(step, trial.start(recipe, seed), recipe.epochs) for seed in SEEDS]
            trained += [(which, recipe)] * len(SEEDS)
    found: dict[tuple[int, str], list[float]] = {}
    with cluster.connect(len(chains)) as client:
        results = run_chains(client, chains, data)
        for which_trial, state in tqdm(results, total=sum(n for *_, n in chains), unit="epoch"):
            which, recipe = trained[which_trial]
            if state.epoch == recipe.epochs:
                accuracy = state.row["val_accuracy"]
                found.setdefault((which, recipe.variant), []).append(accuracy)
    print("| settings |", " | ".join(VARIANTS), "|")
    print("|---" * (1 + len(VARIANTS)) + "|")
    for which, settings in enumerate(SEARCHED):
        named = ", ".join(f"{key} {value}" for key, value in settings.items())
        print("|", named, "|", " | ".join(shown(found[which, v]) for v in VARIANTS), "|")


def shown(accuracies: list[float]) -> str:
    """Mean over seeds, in percent, with its standard error."""
    error = np.std(accuracies, ddof=1) / len(accuracies) ** 0.5
    return f"{np.mean(accuracies):.3%} ± {error:.3%}"


if __name__ == "__main__":
    main()
