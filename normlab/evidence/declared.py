"""Claims as `studies/claims.yaml` declares them: read and validated."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normlab import params
from normlab.errors import InputError

WORDS = {
    "test_accuracy": "test accuracy",
    "seen_accuracy": "accuracy on images learnt from",
    "optimism": "accuracy on it",
    "easier": "accuracy on images not learnt from",
    "log_val_loss": "validation loss over all epochs",
    "parameters": "the parameters of a normalization layer",
}
"""What a claim may speak of, and how a sentence calls it."""
OF_TRIALS = tuple(quantity for quantity in WORDS if quantity != "parameters")
"""Of these every trial has a value, to be tested; parameters are counted."""
FACTORS = ("log_val_loss", "parameters")
"""Of these an effect is a factor, of the others a difference."""
STEPS = {"arm": "{}", "l1_lambda": "λ = {}", "batch_size": "batches of {}"}
"""How a sentence calls a level of what a trend goes over."""

Word = Annotated[str, Field(min_length=1)]
Value = str | int | float


class Strict(BaseModel):
    """No unknown keys, no conversions, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Term(NamedTuple):
    """An arm of a study, and its weight in a sum."""

    weight: float
    arm: dict[str, Value]
    """Columns of the study's table with the values that the arm has there."""


class Twin(Strict):
    """Another study that a claim is judged on once more."""

    study: Word
    smallest_effect: float | None = Field(default=None, gt=0)


class Place(Strict):
    """Where a claim of several places is judged: a study, and perhaps some arms of it."""

    where: Word
    """In words, for the claim's sentences."""
    study: Word
    smallest_effect: float | None = Field(default=None, gt=0)
    arms: dict[str, Value] = {}
    """Columns of the study's table with the values that all terms of the contrast have there."""


class Claim(Strict):
    """A claim and how to judge it, as `studies/claims.yaml` explains."""

    claim: Word = Field(description="a sentence")
    source: Word = Field(description="who claims it")
    study: Word = Field(description="a study, or main")
    quantity: Literal[
        "test_accuracy", "seen_accuracy", "optimism", "easier", "log_val_loss", "parameters"
    ] = Field(description=", ".join(WORDS))
    subject: Word = Field(description="what is done to the quantity")
    test: Literal["trend", "contrast", "non-inferiority", "ratio"] = Field(
        description="trend, contrast, non-inferiority or ratio"
    )
    direction: Literal["higher", "lower"] = Field(description="higher or lower")
    smallest_effect: float = Field(gt=0, description="a number above 0, a factor above 1")
    over: str | None = Field(default=None, description="for a trend: a column of the study's table")
    levels: list[Value] = Field(default=[], description="for a trend: values of it, in order")
    contrast: list[dict[str, Value]] = Field(
        default=[], description="terms such as {weight: 1, variant: gn}; none for a trend"
    )

    than: float = Field(
        default=0.0, description="a value that the one arm of a contrast is compared with"
    )
    twin: Twin | None = Field(
        default=None, description="a study, and perhaps a smallest_effect, such as {study: l1}"
    )

    places: dict[str, Place] = Field(
        default={}, description="places by name, such as {small: {where: on few, study: l1}}"
    )

    @property
    def terms(self) -> list[Term]:
        """The contrast's."""
        return [
            Term(float(term["weight"]), {key: v for key, v in term.items() if key != "weight"})
            for term in self.contrast
        ]


class File(Strict):
    """All of `studies/claims.yaml`."""

    reported: dict[str, float] = Field(description="accuracies by variant")
    smallest_difference: float = Field(gt=0, description="a number above 0")
    smallest_error_ratio: float = Field(gt=1, description="a number above 1")
    claims: dict[str, Claim] = Field(min_length=1, description="claims by name")

    def every(self) -> dict[str, Claim]:
        """Give all that is judged: each claim, or instead of it one for each of its places.

        Each is followed by its twin, if it has one, as a claim of its own.
        """
        found: dict[str, Claim] = {}
        for name, claim in self.claims.items():
            if claim.places:
                found |= {f"{name}_{key}": _at(claim, place) for key, place in claim.places.items()}
                continue
            found[name] = claim
            if twin := claim.twin:
                least = twin.smallest_effect or claim.smallest_effect
                changes = {"study": twin.study, "smallest_effect": least, "twin": None}
                found[twin_of(name)] = claim.model_copy(update=changes)
        return found


def _at(claim: Claim, place: Place) -> Claim:
    """Put a claim of one of its places alone."""
    changes = {
        "claim": f"{claim.claim}, {place.where}",
        "subject": f"{claim.subject}, {place.where},",
        "study": place.study,
        "smallest_effect": place.smallest_effect or claim.smallest_effect,
        "contrast": [term | place.arms for term in claim.contrast],
        "places": {},
    }
    return claim.model_copy(update=changes)


def twin_of(name: str) -> str:
    """Name the twin of a claim."""
    return f"{name}_twin"


def load(path: Path) -> File:
    """Read and validate the claims.

    Raises
    ------
    InputError
        If the file cannot be read or a claim is not as it should be; one line a fault, with file,
        claim, key, value and what is allowed.
    """
    values = params.mapping(path)
    try:
        file = File.model_validate(values)
    except ValidationError as error:
        faults = [_fault(list(item["loc"]), item["input"], item["type"]) for item in error.errors()]
        raise InputError("\n".join(f"{path}: {fault}" for fault in dict.fromkeys(faults))) from None
    for name, claim in file.claims.items():
        trend, terms = claim.test == "trend", len(claim.contrast)
        for term in claim.contrast:
            if not isinstance(term.get("weight"), int | float) or len(term) < 2:
                got, allowed = f"{term}", Claim.model_fields["contrast"].description
                raise InputError(f"{path}: {name}.contrast: got {got}, allowed: {allowed}")
        if (
            trend != (claim.over is not None)
            or trend == bool(terms)
            or (claim.levels and not trend)
        ):
            got = f"over {claim.over}, {len(claim.levels)} levels and {terms} terms of contrast"
            allowed = "over, and perhaps levels" if trend else "contrast"
            raise InputError(f"{path}: {name}: got {got}, allowed: {allowed} for a {claim.test}")
        speaks = ("parameters",) if claim.test == "ratio" else OF_TRIALS
        if claim.quantity not in speaks:
            got = f"{claim.quantity} for a {claim.test}"
            raise InputError(f"{path}: {name}.quantity: got {got}, allowed: {' or '.join(speaks)}")
        if claim.places and (trend or claim.twin):
            got = "a trend" if trend else "a twin"
            raise InputError(f"{path}: {name}: got {got} with places, allowed: a contrast alone")
        least = {"smallest_effect": claim.smallest_effect}
        others = {"twin": claim.twin} | {f"places.{n}": one for n, one in claim.places.items()}
        for key, other in others.items():
            if other and other.smallest_effect is not None:
                least[f"{key}.smallest_effect"] = other.smallest_effect
        for key, value in least.items():
            if claim.quantity in FACTORS and value <= 1:
                raise InputError(f"{path}: {name}.{key}: got {value:g}, allowed: above 1")
        if claim.than and terms != 1:
            got = f"{claim.than:g} for {terms} terms"
            raise InputError(f"{path}: {name}.than: got {got}, allowed: for a contrast of one")
        if claim.test == "ratio" and terms != 2:
            raise InputError(
                f"{path}: {name}.contrast: got {terms} variants, allowed: 2 for a ratio"
            )
    return file


def _fault(place: list[Any], value: Any, kind: str) -> str:
    fields = Claim.model_fields if len(place) > 2 else File.model_fields
    key = place[2] if len(place) > 2 else place[0]
    where = ".".join(str(part) for part in place[:3] if part != "claims")
    if kind == "extra_forbidden":
        return f"{where}: unknown key, allowed: {', '.join(fields)}"
    got = "nothing" if kind == "missing" else repr(value)
    return f"{where}: got {got}, allowed: {fields[key].description}"
