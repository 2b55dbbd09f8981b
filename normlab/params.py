"""The typed, validated view of parameter files: the one module that reads them."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, overload

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from yaml import YAMLError

from normlab import yaml12
from normlab.errors import InputError

LARGEST = 2**16
"""Bytes of a file of parameters."""
SHOWN = 20
"""Problems of a file; of more, the number is told."""
TRAINING_IMAGES = 60_000
TRAIN_SIZE = f"null, or a whole number from 1 to {TRAINING_IMAGES} minus val_size"


def _unique(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError
    return values


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError
    return values


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError
    return value


def allowed(values: str, **constraints: Any) -> Any:
    """Make a field of a parameter: its constraints, and what they allow in words."""
    return Field(json_schema_extra={"allowed": values}, **constraints)


def allowed_values(field: FieldInfo) -> str:
    """Say in words what a parameter may be, as its field was made by `allowed`, or a section."""
    if section := section_of(field):
        return f"a section of {', '.join(section.model_fields)}"
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["allowed"])


Count = Annotated[int, allowed("a whole number from 1 to 1000", ge=1, le=1000)]
Size = Annotated[
    int, allowed(f"a whole number from 1 to {TRAINING_IMAGES}", ge=1, le=TRAINING_IMAGES)
]
Rate = Annotated[float, allowed("a number from 1e-09 to 10", ge=1e-9, le=10)]
Weight = Annotated[float, allowed("a number from 0 to 1", ge=0, le=1)]
Momentum = Annotated[float, allowed("a number from 0 to 0.9999", ge=0, le=0.9999)]
Factor = Annotated[float, allowed("a number from 1e-06 to 1", ge=1e-6, le=1)]
Fraction = Annotated[float, allowed("a fraction from 0 to 1", ge=0, le=1)]
Rotation = Annotated[float, allowed("degrees from 0 to 180", ge=0, le=180)]
Shear = Annotated[float, allowed("degrees from 0 to 80", ge=0, le=80)]
Scale = Annotated[float, Field(ge=0.1, le=10)]
Range = Annotated[
    list[Scale],
    allowed("two numbers from 0.1 to 10, the smaller first", min_length=2, max_length=2),
    AfterValidator(_ascending),
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[
    list[Seed],
    allowed(
        "a list of 1 to 1000 whole numbers from 0 to 4294967295, all different",
        min_length=1,
        max_length=1000,
    ),
    AfterValidator(_unique),
]


class Section(BaseModel):
    """Parameters, and sections of them; a docstring below a field says what it does."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def conflicts(self) -> list[str]:
        """Name the keys whose values are allowed by themselves but not beside the others."""
        return []


class Params(Section):
    """Every setting of the experiment, `params.yaml`."""

    dataset: Annotated[str, AfterValidator(_printable)] = allowed(
        "mnist, fashion_mnist or the path of a folder", min_length=1, max_length=1000
    )
    """What is classified; a folder has four IDX files, as docs/datasets.md says."""
    seeds: Seeds
    """Each variant is trained once per seed."""
    epochs: Count
    """Passes over the training images."""
    val_size: int = allowed(
        f"a whole number from 1 to {TRAINING_IMAGES - 1}", ge=1, lt=TRAINING_IMAGES
    )
    """Training images set aside for validation."""
    train_size: Size | None = allowed(TRAIN_SIZE)
    """How many of the others to train on; null for all."""
    batch_size: Size
    """Images per step; the last, smaller batch is used too. With batch norm, or by PyTorch, each
    takes memory in every trial that runs (0.14 MB by the engine); what a machine cannot hold is
    refused."""
    lr: Rate
    """Learning rate of SGD. A trial that it drives above the loss of guessing is named at its
    end."""
    momentum: Momentum
    """Of SGD: what is kept of the last step, in the next one."""
    nesterov: bool = allowed("true or false; true needs a momentum above 0")
    """Nesterov's form of momentum."""
    lr_schedule: Literal["constant", "step", "cosine"] = allowed("constant, step or cosine")
    """How the learning rate goes, changing once an epoch."""
    lr_step_epochs: Count
    """Schedule `step`: epochs between changes."""
    lr_step_factor: Factor
    """Schedule `step`: factor at each change."""
    l1_lambda: Weight
    """BN + L1: the penalty is this times the sum of all absolute parameters."""
    gn_groups: Count
    """GN: at most this many groups; a layer takes the largest divisor of its channels that is not
    above. 1 normalizes over (C,H,W), 16 or more is instance norm."""
    ln_affine: Literal["elementwise", "channel"] = allowed("elementwise or channel")
    """LN: a scale and shift per element, or per channel."""
    affine_rotation: Rotation
    """Augmentation: at most this much, to either side."""
    affine_translation: Fraction
    """Augmentation: at most this much of the width, in every direction."""
    affine_scale: Range
    """Augmentation: smallest and largest factor."""
    affine_shear: Shear
    """Augmentation: at most this much, to either side."""
    device: Literal["auto", "cpu", "cuda"] = allowed("auto, cpu or cuda")
    """`cpu` gives the same results on every machine; `cuda`, or `auto` (a GPU where there is one,
    else `cpu`), gives this machine's."""
    precision: Literal["auto", "float32", "bfloat16"] = allowed("auto, float32 or bfloat16")
    """Of training: `auto` takes bfloat16 on a GPU that has it natively, else float32. Evaluation is
    always in float32."""

    def conflicts(self) -> list[str]:
        """Name the keys whose values are allowed by themselves but not beside the others."""
        too_many = (self.train_size or 0) > TRAINING_IMAGES - self.val_size
        still = self.nesterov and self.momentum == 0
        return ["train_size"] * too_many + ["nesterov"] * still


Model = TypeVar("Model", bound=Section)


@overload
def load(path: Path) -> Params: ...
@overload
def load(path: Path, model: type[Model]) -> Model: ...
def load(path: Path, model: type[Section] = Params) -> Section:
    """Read and validate a parameter file.

    Raises
    ------
    InputError
        If the file cannot be read as by `mapping`, or a key is unknown, missing or has a value that
        is not allowed. One line a key, each naming file, key, value and what is allowed.
    """
    values = mapping(path, LARGEST)
    problems = _problems(values, model)
    if len(problems) > SHOWN:
        problems[SHOWN:] = [f"and {len(problems) - SHOWN} more like these"]
    if problems:
        raise InputError("\n".join(f"{path}: {_one_line(problem)}" for problem in problems))
    return model.model_validate(values)


def mapping(path: Path, largest: int = yaml12.LARGEST) -> dict[str, Any]:
    """Read a YAML file as DVC does (YAML 1.2), so that `1e-4` is a number to both.

    Raises
    ------
    InputError
        If the file is missing, has more than `largest` bytes, is not YAML or holds no mapping; one
        line that names it.
    """
    try:
        with path.open("rb") as stream:
            read = stream.read(largest + 1)
        if len(read) > largest:
            raise InputError(f"{path}: got a larger file, allowed: at most {largest:,} bytes")
        values = yaml12.load(read.decode())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise InputError(f"{path}: not valid YAML{line}: {_one_line(problem)}") from None
    if not isinstance(values, dict):
        got = type(values).__name__
        raise InputError(f"{path}: got a {got}, allowed: a mapping of names to values")
    named: dict[str, Any] = _named(values)
    return named


def _named(values: Any) -> Any:
    """Make strings of all keys: a mapping's may be numbers."""
    if isinstance(values, dict):
        return {str(key): _named(value) for key, value in values.items()}
    return [_named(value) for value in values] if isinstance(values, list) else values


def _problems(values: dict[str, Any], model: type[Section]) -> list[str]:
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        # Of a list, each item that is wrong has an error of its own; the list is named once.
        found = {_place(item["loc"], model): item["type"] for item in error.errors()}
        return [_problem(place, kind, values, model) for place, kind in found.items()]
    return [_problem((key,), "conflict", values, model) for key in checked.conflicts()]


def _place(loc: tuple[int | str, ...], model: type[Section]) -> tuple[str, ...]:
    """Shorten where pydantic found an error to the keys that lead to a parameter."""
    key, *rest = map(str, loc)
    field = model.model_fields.get(key)
    if field is None or not rest:
        return (key,)
    if section := section_of(field):
        return (key, *_place(tuple(rest), section))
    name, *inner = rest
    if (section := sections_of(field)) and inner[:1] != ["[key]"]:
        return (key, name, *(_place(tuple(inner), section) if inner else ()))
    return (key,)


def section_of(field: FieldInfo) -> type[Section] | None:
    """Give the model of a section; None if the field is a parameter."""
    return _section(field.annotation)


def sections_of(field: FieldInfo) -> type[Section] | None:
    """Give the model of each of the sections that a field has by name; None if it has none."""
    kind = field.annotation
    return _section(get_args(kind)[1]) if get_origin(kind) is dict else None


def _section(kind: Any) -> type[Section] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _problem(place: tuple[str, ...], kind: str, values: Any, model: type[Section]) -> str:
    where = ".".join(_shortened(name, 60) for name in place)
    *sections, key = place
    named = False
    for name in sections:
        values = values[name]
        if named:  # A name among sections, all of one model.
            named = False
        else:
            field = model.model_fields[name]
            named = sections_of(field) is not None
            model = section_of(field) or sections_of(field) or model
    fields = model.model_fields
    if named:
        return f"{where}: got {_shown(values[key])}, allowed: a section of {', '.join(fields)}"
    if kind == "missing":
        return f"{where}: missing, allowed: {allowed_values(fields[key])}"
    got = _shown(values[key])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(key[:100], fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(fields)}"
        return f"{where}: unknown key (value {got}), {hint}"
    return f"{where}: got {got}, allowed: {allowed_values(fields[key])}"


def _shown(value: Any) -> str:
    return _shortened(json.dumps(value, default=str, ensure_ascii=False), 60)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _one_line(text: str) -> str:
    """Escape what would begin a line of its own, or tell a terminal what to do."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return _shortened(shown, 1000)
