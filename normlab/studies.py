"""The studies that `studies/params.yaml` declares: their arms, and the trials of each.

An arm is a variant as the pipeline trains it, with some parameters changed; what neither it nor its
study changes is as in `params.yaml`. The main comparison is the study `main`, whose arms change
nothing, and which is not among these.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, create_model

from normlab import params
from normlab.arms import Arm
from normlab.data.validation import Part
from normlab.errors import InputError
from normlab.network.architecture import REFERENCE
from normlab.params import (
    TRAIN_SIZE,
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
NETWORK = ("norm_place", "ln_axes", "conv3_padding")
"""What an arm may change of the network that is no parameter of the pipeline."""
RECIPE = (
    "affine_rotation affine_scale affine_shear affine_translation batch_size gn_groups ln_affine "
    "lr lr_schedule lr_step_epochs lr_step_factor momentum nesterov val_size"
)
"""The parameters of the pipeline that the studies' results depend on, of one or another."""
UNSET: Any = None
"""Stands in a field of `Changes` for what is not changed."""

Each = Field(min_length=LAYERS, max_length=LAYERS)
Axes = Literal["chw", "last"]
NAME = "[a-z][a-z0-9_]{0,39}"
"""A study's, and an arm's."""
Name = Annotated[str, Field(pattern=f"^{NAME}$")]


class Changes(Section):
    """Parameters with other values than in `params.yaml`, and what is changed of the network."""

    train_size: Annotated[Size | None, allowed(TRAIN_SIZE)] = UNSET
    batch_size: Size = UNSET
    lr: Rate = UNSET
    momentum: Momentum = UNSET
    nesterov: bool = allowed("true or false", default=UNSET)
    lr_schedule: Literal["constant", "step", "cosine"] = allowed(
        "constant, step or cosine", default=UNSET
    )
    lr_step_epochs: Count = UNSET
    lr_step_factor: Factor = UNSET
    l1_lambda: Weight = UNSET
    gn_groups: Count | Annotated[list[Count], Each] = allowed(
        f"a whole number from 1 to 1000, or a list of {LAYERS}, one for each convolution",
        default=UNSET,
    )
    ln_affine: Literal["elementwise", "channel"] = allowed("elementwise or channel", default=UNSET)
    affine_rotation: Rotation = UNSET
    affine_translation: Fraction = UNSET
    affine_scale: Range = UNSET
    affine_shear: Shear = UNSET
    norm_place: Literal["after_relu", "before_relu"] = allowed(
        "after_relu or before_relu", default=UNSET
    )
    """Where the normalization is."""
    ln_axes: Axes | Annotated[list[Axes], Each] = allowed(
        f"chw, last, or a list of {LAYERS}, one for each convolution", default=UNSET
    )
    """What layer norm goes over: (C,H,W), or the last axis alone."""
    conv3_padding: Literal[0, 1] = allowed("0 or 1", default=UNSET)
    """Of the third convolution."""

    def given(self) -> dict[str, Any]:
        """Those that are changed."""
        names = [name for name in Changes.model_fields if name in self.model_fields_set]
        return {name: getattr(self, name) for name in names}


class Compared(Changes):
    """An arm, or several that differ in what the study goes over."""

    variant: str = allowed("a variant")
    """Which normalization, as the pipeline's stages name it."""
    label: str | None = allowed("a text", default=None)
    """Its name for people; by default the variant's."""
    trained_in: str | None = allowed("study.arm", default=None)
    """Whose trials it has, of another study; they have to be trained alike."""


def _levels(values: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Check what a study goes over."""
    for name, levels in values.items():
        texts = [json.dumps(level) for level in levels]
        if not 2 <= len(levels) <= 100 or len(set(texts)) < len(texts):
            raise ValueError
        try:
            for level in levels:
                Changes.model_validate({name: level})
        except ValidationError:
            raise ValueError from None
    return values


class Study(Section):
    """A question: what its arms are, and how often and for how long each is trained."""

    dataset: Literal["mnist", "fashion_mnist"] = allowed("mnist or fashion_mnist")
    """What is classified."""
    seeds: Count
    """Trials of each arm; fewer than 10 show little among so many claims."""
    registered: dict[str, str] = allowed("claims and their digests, as `make register` writes them")
    """Each arm's seeds come from these; without any they are 0, 1, 2, ... for all arms."""
    epochs: Count
    """Passes over the training images."""
    train_size: Annotated[Size | None, allowed(TRAIN_SIZE)]
    """How many images to train on; null for all but the validation images."""
    folds: bool = allowed("true or false", default=False)
    """Whether each trial of an arm has other images set apart: the first `val_size` of them, the
    next, and so on. Then it is scored on the images it has learnt from too."""
    recipe: Changes = Changes()
    """What is as it is here for all arms of the study."""
    arms: dict[Name, Compared] = allowed(
        "1 to 100 arms by name, of small letters, digits and _", min_length=1, max_length=100
    )
    """What is compared: of each arm the variant, and what it has otherwise than the others."""
    over: Annotated[dict[str, list[Any]], AfterValidator(_levels)] = allowed(
        "parameters, with 2 to 100 different values of each", default={}
    )
    """Each arm is trained with all of these values."""
    scale_lr: bool = allowed("true or false", default=False)
    """Whether the learning rate is in proportion to the batch size."""


Studies = Mapping[str, Study]


class Planned(NamedTuple):
    """A trial that a study asks for."""

    arm: Arm
    seed: int
    part: Part
    """Which training images it learns from."""


def load(path: Path) -> dict[str, Study]:
    """Read and validate all studies, by name, in their order.

    Raises
    ------
    InputError
        As `params.load`; and if an arm is said to be trained in one that there is not.
    """
    names = params.mapping(path, params.LARGEST)
    for name in names:
        if not re.fullmatch(NAME, name):
            raise InputError(f"{path}: got a study {name!r}, allowed: a name that fits {NAME}")
    every: Any = dict.fromkeys(names, (Study, ...))
    found = params.load(path, create_model("Studies", __base__=Section, **every))
    own = {name: getattr(found, name) for name in names}
    for name, study in own.items():
        for key, arm in study.arms.items():
            if arm.trained_in is not None and not _is_arm(own, arm.trained_in):
                raise InputError(
                    f"{path}: {name}.arms.{key}.trained_in: got {arm.trained_in}, allowed: "
                    "study.arm of an arm that its own study trains"
                )
    return own


def _is_arm(own: Studies, place: str) -> bool:
    """Whether there is an arm that its own study trains, on the images that all its arms have."""
    name, _, arm = place.partition(".")
    study = own.get(name)
    if study is None or arm not in study.arms:
        return False
    return not (study.over or study.folds or study.arms[arm].trained_in)


def arms(own: Studies, study: str, base: Params) -> list[Arm]:
    """All arms of a study, in its order.

    Parameters
    ----------
    own
        The studies, as `load` gives them.
    study
        Which of them.
    base
        The parameters of the pipeline.
    """
    about, found = own[study], []
    compared = {name: None for arm in about.arms.values() for name in arm.given()}
    factors = tuple(compared | dict.fromkeys(about.over))
    same = {"epochs": about.epochs, "train_size": about.train_size} | about.recipe.given()
    for key, arm in about.arms.items():
        for values in itertools.product(*about.over.values()):
            levels = dict(zip(about.over, values, strict=True))
            changes = same | arm.given() | levels
            if about.scale_lr:
                size = changes.get("batch_size", base.batch_size)
                changes["lr"] = base.lr * size / base.batch_size
            label = arm.label
            if len(about.arms) == 1 and levels:
                label = ", ".join(f"{name} {_level(level)}" for name, level in levels.items())
            found.append(
                Arm(
                    study=study,
                    variant=arm.variant,
                    changes={k: v for k, v in changes.items() if k not in NETWORK},
                    network={k: v for k, v in changes.items() if k in NETWORK},
                    factors=factors,
                    label=label,
                    key="_".join([key, *map(_level, values)]),
                    trained_in=arm.trained_in,
                )
            )
    return found


def planned(own: Studies, study: str, base: Params) -> list[Planned]:
    """All trials of a study, arm by arm; those of arms trained in another study are that one's."""
    return [trial for arm in arms(own, study, base) for trial in _planned(own, arm, base)]


def origin(own: Studies, arm: Arm, base: Params) -> Arm:
    """Give the arm, of whichever study, whose trials an arm has."""
    if arm.trained_in is None:
        return arm
    study, _, key = arm.trained_in.partition(".")
    (found,) = (one for one in arms(own, study, base) if one.name == key)
    return found


def seeds(own: Studies, arm: Arm, base: Params) -> list[int]:
    """Give the seeds of an arm, whole numbers below 2**32.

    Those of a study without registered claims are 0, 1, 2, ..., the same for all arms. Otherwise
    each arm has its own, from a hash of the registered digests and its name: nobody can have run
    them before the registration.
    """
    arm = origin(own, arm, base)
    about = own[arm.study]
    if not about.registered:
        return list(range(about.seeds))

    def drawn(number: int) -> int:
        text = json.dumps([about.registered, arm.name, number], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])

    found, numbers = dict[int, None](), itertools.count()
    while len(found) < about.seeds:
        found[drawn(next(numbers))] = None
    return list(found)


def _planned(own: Studies, arm: Arm, base: Params) -> Iterator[Planned]:
    size = arm.value(base, "train_size")
    for number, seed in enumerate(seeds(own, arm, base)):
        yield Planned(arm, seed, Part(base.val_size, size, number if own[arm.study].folds else 0))


def _level(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else f"{value}"
