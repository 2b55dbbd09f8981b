"""The typed, validated view of parameter files: the one module that reads them."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from yaml import YAMLError

from normlab import yaml12
from normlab.errors import InputError

TRAINING_IMAGES = 60_000


def _unique(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError
    return values


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError
    return values


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Scale = Annotated[float, Field(gt=0, le=10)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_unique)]
SEEDS = "a list of at least one whole number from 0 to 4294967295, all different"
Range = Annotated[list[Scale], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


class Flat(BaseModel):
    """A flat file of parameters; a field's description says which values are allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def conflicts(self) -> list[str]:
        """Name the keys whose values are allowed by themselves but not beside the others."""
        return []


class Params(Flat):
    """Every setting of the experiment, `params.yaml`."""

    seeds: Seeds = Field(description=SEEDS)
    epochs: Count = Field(description="a whole number, 1 or more")
    val_size: int = Field(
        ge=1, lt=TRAINING_IMAGES, description=f"a whole number from 1 to {TRAINING_IMAGES - 1}"
    )
    train_size: Count | None = Field(
        description=f"null, or a whole number from 1 to {TRAINING_IMAGES} minus val_size"
    )
    batch_size: int = Field(
        ge=1, le=TRAINING_IMAGES, description=f"a whole number from 1 to {TRAINING_IMAGES}"
    )
    lr: float = Field(gt=0, description="a number above 0")
    momentum: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    nesterov: bool = Field(description="true or false; true needs a momentum above 0")
    lr_schedule: Literal["constant", "step", "cosine"] = Field(
        description="constant, step or cosine"
    )
    lr_step_epochs: Count = Field(description="a whole number, 1 or more")
    lr_step_factor: float = Field(gt=0, le=1, description="a number above 0, at most 1")
    l1_lambda: float = Field(ge=0, description="a number, 0 or more")
    gn_groups: Count = Field(description="a whole number, 1 or more")
    ln_affine: Literal["elementwise", "channel"] = Field(description="elementwise or channel")
    affine_rotation: float = Field(ge=0, le=180, description="degrees from 0 to 180")
    affine_translation: float = Field(ge=0, le=1, description="a fraction from 0 to 1")
    affine_scale: Range = Field(description="two numbers above 0, at most 10, the smaller first")
    affine_shear: float = Field(ge=0, lt=90, description="degrees from 0 to below 90")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto, cpu or cuda")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        description="auto, float32 or bfloat16"
    )

    def conflicts(self) -> list[str]:
        """Name the keys whose values are allowed by themselves but not beside the others."""
        too_many = (self.train_size or 0) > TRAINING_IMAGES - self.val_size
        still = self.nesterov and self.momentum == 0
        return ["train_size"] * too_many + ["nesterov"] * still


Model = TypeVar("Model", bound=Flat)


@overload
def load(path: Path) -> Params: ...
@overload
def load(path: Path, model: type[Model]) -> Model: ...
def load(path: Path, model: type[Flat] = Params) -> Flat:
    """Read and validate a parameter file.

    Raises
    ------
    InputError
        If the file cannot be read as by `mapping`, or a key is unknown, missing or has a value that
        is not allowed. One line a key, each naming file, key, value and what is allowed.
    """
    values = mapping(path)
    problems = _problems(values, model)
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))
    return model.model_validate(values)


def mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file as DVC does (YAML 1.2), so that `1e-4` is a number to both.

    Raises
    ------
    InputError
        If the file is missing, is not YAML or holds no mapping; one line that names it.
    """
    try:
        values = yaml12.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise InputError(f"{path}: not valid YAML{line}: {problem}") from None
    if not isinstance(values, dict):
        got = type(values).__name__
        raise InputError(f"{path}: got a {got}, allowed: a mapping of names to values")
    return {str(key): value for key, value in values.items()}


def _problems(values: dict[str, Any], model: type[Flat]) -> list[str]:
    fields = model.model_fields
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        kinds = {str(item["loc"][0]): item["type"] for item in error.errors()}
        return [_problem(key, kind, values, fields) for key, kind in kinds.items()]
    return [_refusal(key, values[key], fields) for key in checked.conflicts()]


def _problem(key: str, kind: str, values: dict[str, Any], fields: dict[str, Any]) -> str:
    if kind == "missing":
        return f"{key}: missing, allowed: {fields[key].description}"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key, fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(fields)}"
        return f"{key}: unknown key (value {_shown(values[key])}), {hint}"
    return _refusal(key, values[key], fields)


def _refusal(key: str, value: Any, fields: dict[str, Any]) -> str:
    return f"{key}: got {_shown(value)}, allowed: {fields[key].description}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
