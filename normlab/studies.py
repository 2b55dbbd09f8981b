"""The studies: which arms each compares, and the parameters that say so.

An arm is a variant as the pipeline trains it, with some parameters changed. All else, and whatever
a study does not change, is as in `params.yaml`. The main comparison is the study `main`, whose arms
change nothing.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from normlab import formatting
from normlab.arms import Arm
from normlab.network.architecture import REFERENCE
from normlab.params import SEEDS, TRAINING_IMAGES, Count, Flat, Params, Range, Seeds

TRAIN_SIZE = f"null, or a whole number from 1 to {TRAINING_IMAGES} minus val_size"
BATCH_SIZES = f"a list of at least two whole numbers from 1 to {TRAINING_IMAGES}, ascending"
GROUPS = "a list of at least two whole numbers, 1 or more, ascending"
LAMBDAS = "a list of at least two numbers, 0 or more, ascending"
LAYERS = len(REFERENCE.convolutions)


def _ascending(values: list[Any]) -> list[Any]:
    if any(one >= other for one, other in itertools.pairwise(values)):
        raise ValueError
    return values


Ordered = AfterValidator(_ascending)
Several = Field(min_length=2)
Size = Annotated[int, Field(ge=1, le=TRAINING_IMAGES)]
Weight = Annotated[float, Field(ge=0)]


class Settings(Flat):
    """Every setting of the studies, `studies/params.yaml`: grids, budgets, the reference recipe."""

    groups: Annotated[list[Count], Several, Ordered] = Field(description=GROUPS)
    groups_seeds: Seeds = Field(description=SEEDS)
    groups_epochs: Count = Field(description="a whole number, 1 or more")
    groups_train_size: Size | None = Field(description=TRAIN_SIZE)

    l1_lambdas: Annotated[list[Weight], Several, Ordered] = Field(description=LAMBDAS)
    l1_seeds: Seeds = Field(description=SEEDS)
    l1_epochs: Count = Field(description="a whole number, 1 or more")
    l1_train_size: Size | None = Field(description=TRAIN_SIZE)

    layer_norm_seeds: Seeds = Field(description=SEEDS)
    layer_norm_epochs: Count = Field(description="a whole number, 1 or more")
    layer_norm_train_size: Size | None = Field(description=TRAIN_SIZE)

    batch_sizes: Annotated[list[Size], Several, Ordered] = Field(description=BATCH_SIZES)
    batch_size_seeds: Seeds = Field(description=SEEDS)
    batch_size_epochs: Count = Field(description="a whole number, 1 or more")
    batch_size_train_size: Size | None = Field(description=TRAIN_SIZE)

    replication_seeds: Seeds = Field(description=SEEDS)
    replication_epochs: Count = Field(description="a whole number, 1 or more")
    replication_batch_size: Size = Field(description=f"a whole number from 1 to {TRAINING_IMAGES}")
    replication_lr: float = Field(gt=0, description="a number above 0")
    replication_momentum: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    replication_lr_step_epochs: Count = Field(description="a whole number, 1 or more")
    replication_lr_step_factor: float = Field(gt=0, le=1, description="a number above 0, at most 1")
    replication_l1_lambda: Weight = Field(description="a number, 0 or more")
    replication_gn_groups: Annotated[list[Count], Field(min_length=LAYERS, max_length=LAYERS)] = (
        Field(description=f"a list of {LAYERS} whole numbers, 1 or more, one per convolution")
    )
    replication_affine_rotation: float = Field(ge=0, le=180, description="degrees from 0 to 180")
    replication_affine_translation: float = Field(ge=0, le=1, description="a fraction from 0 to 1")
    replication_affine_scale: Range = Field(
        description="two numbers above 0, at most 10, the smaller first"
    )
    replication_affine_shear: float = Field(ge=0, lt=90, description="degrees from 0 to below 90")


class Study(NamedTuple):
    """A question, and the arms whose comparison answers it."""

    title: str
    arms: Callable[[Settings, Params], list[Arm]]


def groups(own: Settings, _: Params) -> list[Arm]:
    """Group norm with more and more groups."""
    return [
        Arm(
            "groups",
            "gn",
            {"gn_groups": count},
            ("gn_groups",),
            formatting.many(count, "group"),
            f"{count}",
        )
        for count in own.groups
    ]


def l1(own: Settings, _: Params) -> list[Arm]:
    """Batch norm with a larger and larger penalty."""
    return [
        Arm(
            "l1",
            "bn_l1",
            {"l1_lambda": weight},
            ("l1_lambda",),
            f"λ = {formatting.power_of_ten(weight)}",
            f"{weight:g}",
        )
        for weight in own.l1_lambdas
    ]


def layer_norm(_: Settings, __: Params) -> list[Arm]:
    """Layer norm with either affine, batch norm without a penalty, group norm."""
    arms: list[tuple[str, str, dict[str, Any], str]] = [
        ("bn", "bn_l1", {"l1_lambda": 0.0}, "Batch norm"),
        ("gn", "gn", {}, "Group norm"),
        ("ln_channel", "ln", {"ln_affine": "channel"}, "Layer norm, per channel"),
        ("ln_elementwise", "ln", {"ln_affine": "elementwise"}, "Layer norm, per element"),
    ]
    factors = ("l1_lambda", "ln_affine")
    return [
        Arm("layer_norm", variant, changes, factors, label, folder)
        for folder, variant, changes, label in arms
    ]


def batch_size(own: Settings, base: Params) -> list[Arm]:
    """Each normalization at several batch sizes, the learning rate in proportion to them."""
    variants: list[tuple[str, str, dict[str, Any], str]] = [
        ("bn", "bn_l1", {"l1_lambda": 0.0}, "Batch norm"),
        ("gn", "gn", {}, "Group norm"),
        ("ln", "ln", {}, "Layer norm"),
    ]
    return [
        Arm(
            "batch_size",
            variant,
            changes | {"batch_size": size, "lr": base.lr * size / base.batch_size},
            ("batch_size",),
            label,
            f"{folder}_{size}",
        )
        for folder, variant, changes, label in variants
        for size in own.batch_sizes
    ]


REPLICATED = (
    "batch_size",
    "lr",
    "momentum",
    "lr_step_epochs",
    "lr_step_factor",
    "l1_lambda",
    "gn_groups",
    "affine_rotation",
    "affine_translation",
    "affine_scale",
    "affine_shear",
)
"""Parameters of the reference's recipe that `studies/params.yaml` has."""


def replication(own: Settings, _: Params) -> list[Arm]:
    """Run the reference's three variants by its own recipe."""
    recipe = {key: getattr(own, f"replication_{key}") for key in REPLICATED}
    fixed = {"lr_schedule": "step", "nesterov": False, "ln_affine": "elementwise"}
    return [
        Arm("replication", variant, recipe | fixed, on_training_images=True)
        for variant in ("bn_l1", "gn", "ln")
    ]


STUDIES = {
    "groups": Study("How many groups?", groups),
    "l1": Study("How large a penalty?", l1),
    "layer_norm": Study("What do layer norm’s parameters buy?", layer_norm),
    "batch_size": Study("How small a batch?", batch_size),
    "replication": Study("What did the reference measure?", replication),
}
"""All but the main comparison, in the order in which they are shown."""


def arms(study: str, own: Settings, base: Params) -> list[Arm]:
    """All arms of a study, in its order, with its number of epochs.

    Parameters
    ----------
    study
        A key of `STUDIES`.
    own, base
        The parameters of the studies and of the pipeline.
    """
    epochs = {"epochs": getattr(own, f"{study}_epochs")}
    found = STUDIES[study].arms(own, base)
    return [arm._replace(changes=arm.changes | epochs) for arm in found]
