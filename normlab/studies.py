"""The studies: which arms each compares, and the parameters that say so.

An arm is a variant as the pipeline trains it, with some parameters changed. All else, and whatever
a study does not change, is as in `params.yaml`. The main comparison is the study `main`, whose arms
change nothing.
"""

import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator

from normlab import formatting
from normlab.arms import Arm
from normlab.network.architecture import REFERENCE
from normlab.params import (
    TRAIN_SIZE,
    TRAINING_IMAGES,
    Count,
    Factor,
    Fraction,
    Momentum,
    Params,
    Range,
    Rate,
    Rotation,
    Section,
    Shear,
    Size,
    Weight,
    allowed,
)

LAYERS = len(REFERENCE.convolutions)


def _ascending(values: list[Any]) -> list[Any]:
    if any(one >= other for one, other in itertools.pairwise(values)):
        raise ValueError
    return values


Ordered = AfterValidator(_ascending)
Counts = Annotated[
    list[Count],
    allowed(
        "a list of 2 to 100 whole numbers from 1 to 1000, ascending", min_length=2, max_length=100
    ),
    Ordered,
]
Sizes = Annotated[
    list[Size],
    allowed(
        f"a list of 2 to 100 whole numbers from 1 to {TRAINING_IMAGES}, ascending",
        min_length=2,
        max_length=100,
    ),
    Ordered,
]
Weights = Annotated[
    list[Weight],
    allowed("a list of 2 to 100 numbers from 0 to 1, ascending", min_length=2, max_length=100),
    Ordered,
]
TrainSize = Annotated[Size | None, allowed(TRAIN_SIZE)]


class Study(NamedTuple):
    """A question, and the arms whose comparison answers it."""

    title: str
    arms: Callable[["Settings", Params], list[Arm]]


class Trials(Section):
    """What every study has: its trials, and the claims that were registered before they ran."""

    seeds: Count
    """Trials of each arm; fewer than 10 show little among so many claims."""
    registered: dict[str, str] = allowed("claims and their digests, as `make register` writes them")
    """Each arm's seeds come from these; without any they are 0, 1, 2, ... for all arms."""


class Budget(Trials):
    """What most studies have."""

    epochs: Count
    """Passes over the training images."""
    train_size: TrainSize
    """How many images to train on; null for all but the validation images."""


class Groups(Budget):
    """Settings of `groups`."""

    gn_groups: Counts
    """The numbers of groups to compare."""


class Penalties(Budget):
    """Settings of `l1`."""

    l1_lambda: Weights
    """The λ to compare."""


class BatchSizes(Budget):
    """Settings of `batch_size`."""

    batch_size: Sizes
    """Images per step; the learning rate is in proportion, the images seen are as many."""


class Replication(Trials):
    """Settings of `replication`: the reference's own recipe, on all training images."""

    epochs: Count
    """Passes over the training images."""
    batch_size: Size
    """Images per step."""
    lr: Rate
    """Learning rate."""
    momentum: Momentum
    """In the plain form."""
    lr_step_epochs: Count
    """Epochs between changes of the learning rate."""
    lr_step_factor: Factor
    """Factor at each change."""
    l1_lambda: Weight
    """The weight of batch norm's penalty."""
    gn_groups: list[Count] = allowed(
        f"a list of {LAYERS} whole numbers from 1 to 1000, one per convolution",
        min_length=LAYERS,
        max_length=LAYERS,
    )
    """Group norm's numbers of groups."""
    affine_rotation: Rotation
    """Augmentation: degrees, to either side."""
    affine_translation: Fraction
    """Augmentation: fraction of the width, in every direction."""
    affine_scale: Range
    """Augmentation: smallest and largest factor."""
    affine_shear: Shear
    """Augmentation: degrees, to either side."""


class Settings(Section):
    """Every setting of the studies, `studies/params.yaml`: a section for each of them."""

    groups: Groups
    l1: Penalties
    layer_norm: Budget
    batch_size: BatchSizes
    replication: Replication


def groups(own: Settings, _: Params) -> list[Arm]:
    """Group norm with more and more groups."""
    return [
        Arm(
            study="groups",
            variant="gn",
            changes={"gn_groups": count},
            factors=("gn_groups",),
            label=formatting.many(count, "group"),
            folder=f"{count}",
        )
        for count in own.groups.gn_groups
    ]


def l1(own: Settings, _: Params) -> list[Arm]:
    """Batch norm with a larger and larger penalty."""
    return [
        Arm(
            study="l1",
            variant="bn_l1",
            changes={"l1_lambda": weight},
            factors=("l1_lambda",),
            label=f"λ = {formatting.power_of_ten(weight)}",
            folder=f"{weight:g}",
        )
        for weight in own.l1.l1_lambda
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
        Arm(
            study="layer_norm",
            variant=variant,
            changes=changes,
            factors=factors,
            label=label,
            folder=folder,
        )
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
            study="batch_size",
            variant=variant,
            changes=changes | {"batch_size": size, "lr": base.lr * size / base.batch_size},
            factors=("batch_size",),
            label=label,
            folder=f"{folder}_{size}",
        )
        for folder, variant, changes, label in variants
        for size in own.batch_size.batch_size
    ]


def replication(own: Settings, _: Params) -> list[Arm]:
    """Run the reference's three variants by its own recipe."""
    recipe = own.replication.model_dump(exclude={*Trials.model_fields})
    fixed = {"lr_schedule": "step", "nesterov": False, "ln_affine": "elementwise"}
    return [
        Arm(study="replication", variant=variant, changes=recipe | fixed, on_training_images=True)
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


RECIPE = (
    "affine_rotation affine_scale affine_shear affine_translation batch_size dataset gn_groups "
    "ln_affine lr lr_schedule lr_step_epochs lr_step_factor momentum nesterov val_size"
)
"""The parameters of the pipeline that the arms' results depend on, of one study or another."""


def arms(study: str, own: Settings, base: Params) -> list[Arm]:
    """All arms of a study, in its order, with its number of epochs.

    Parameters
    ----------
    study
        A key of `STUDIES`.
    own, base
        The parameters of the studies and of the pipeline.
    """
    epochs = {"epochs": getattr(own, study).epochs}
    found = STUDIES[study].arms(own, base)
    return [arm._replace(changes=arm.changes | epochs) for arm in found]


def seeds(own: Settings, arm: Arm) -> list[int]:
    """Give the seeds of an arm, whole numbers below 2**32.

    Those of a study without registered claims are 0, 1, 2, ..., the same for all arms. Otherwise
    each arm has its own, from a hash of the registered digests and its name: nobody can have run
    them before the registration.
    """
    section: Trials = getattr(own, arm.study)
    if not section.registered:
        return list(range(section.seeds))

    def drawn(number: int) -> int:
        text = json.dumps([section.registered, arm.name, number], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    found, numbers = dict[int, None](), itertools.count()
    while len(found) < section.seeds:
        found[drawn(next(numbers))] = None
    return list(found)
