"""The studies: which settings each compares, and the parameters that say so.

A setting is what the pipeline trains, with some parameters changed. All else, and whatever a study
does not change, is as in `params.yaml`.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from normlab.network import networks
from normlab.params import SEEDS, TRAINING_IMAGES, Count, Flat, Params, Range, Seeds

TRAIN_SIZE = f"null, or a whole number from 1 to {TRAINING_IMAGES} minus val_size"
BATCH_SIZES = f"a list of at least two whole numbers from 1 to {TRAINING_IMAGES}, ascending"
GROUPS = "a list of at least two whole numbers, 1 or more, ascending"
LAMBDAS = "a list of at least two numbers, 0 or more, ascending"
LAYERS = len(networks.REFERENCE.convolutions)


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


class Setting(NamedTuple):
    """One of the settings that a study compares."""

    name: str
    variant: str
    changes: dict[str, Any]
    """Parameters of `params.yaml` that differ, with their values here."""

    def value(self, base: Params, key: str) -> Any:
        """Give the value of a parameter, as changed or else as in `base`."""
        return self.changes[key] if key in self.changes else getattr(base, key)


def groups(own: Settings, _: Params) -> list[Setting]:
    """Group norm with more and more groups."""
    return [Setting(f"{count}", "gn", {"gn_groups": count}) for count in own.groups]


def l1(own: Settings, _: Params) -> list[Setting]:
    """Batch norm with a larger and larger penalty."""
    return [Setting(f"{w:g}", "bn_l1", {"l1_lambda": w}) for w in own.l1_lambdas]


def layer_norm(_: Settings, __: Params) -> list[Setting]:
    """Layer norm with either affine, batch norm without a penalty, group norm."""
    return [
        Setting("bn", "bn_l1", {"l1_lambda": 0.0}),
        Setting("gn", "gn", {}),
        Setting("ln_channel", "ln", {"ln_affine": "channel"}),
        Setting("ln_elementwise", "ln", {"ln_affine": "elementwise"}),
    ]


def batch_size(own: Settings, base: Params) -> list[Setting]:
    """Each normalization at several batch sizes, the learning rate in proportion to them."""
    variants: dict[str, tuple[str, dict[str, Any]]] = {
        "bn": ("bn_l1", {"l1_lambda": 0.0}),
        "gn": ("gn", {}),
        "ln": ("ln", {}),
    }
    return [
        Setting(
            f"{name}_{size}",
            variant,
            changes | {"batch_size": size, "lr": base.lr * size / base.batch_size},
        )
        for name, (variant, changes) in variants.items()
        for size in own.batch_sizes
    ]


def replication(own: Settings, _: Params) -> list[Setting]:
    """Run the reference's three variants by its own recipe."""
    recipe = {
        key: getattr(own, f"replication_{key}")
        for key in (
            *("batch_size", "lr", "momentum", "lr_step_epochs", "lr_step_factor", "l1_lambda"),
            *("affine_rotation", "affine_translation", "affine_scale", "affine_shear"),
            "gn_groups",
        )
    }
    fixed = {"lr_schedule": "step", "nesterov": False, "ln_affine": "elementwise"}
    return [Setting(variant, variant, recipe | fixed) for variant in ("bn_l1", "gn", "ln")]


GRIDS: dict[str, Callable[[Settings, Params], list[Setting]]] = {
    "groups": groups,
    "l1": l1,
    "layer_norm": layer_norm,
    "batch_size": batch_size,
    "replication": replication,
}


def grid(study: str, own: Settings, base: Params) -> list[Setting]:
    """All settings of a study, in its order, with its number of epochs.

    Parameters
    ----------
    study
        A key of `GRIDS`.
    own, base
        The parameters of the studies and of the pipeline.
    """
    epochs = {"epochs": getattr(own, f"{study}_epochs")}
    return [s._replace(changes=s.changes | epochs) for s in GRIDS[study](own, base)]
