"""The digest of a claim: what changes it, and what does not."""

from pathlib import Path
from typing import Any

import pytest

from normlab.evidence import declared, inference, readings, registration
from normlab.evidence.declared import Claim

CLAIMS = declared.load(Path(__file__).parents[2] / "studies/claims.yaml").claims
STUDY: dict[str, Any] = {"gn_groups": [1, 2, 4], "seeds": 10, "registered": {}, "epochs": 6}
RECIPE = {"lr": 0.015, "batch_size": 128}


def digest(claim: Claim, study: Any = STUDY, recipe: Any = RECIPE) -> str:
    return registration.digest(claim, study, recipe)


@pytest.mark.parametrize("name", CLAIMS)
def test_wording_is_free_and_nothing_else(name: str) -> None:
    claim = CLAIMS[name]
    before = digest(claim)
    changes: dict[str, Any] = {
        "claim": "Other words",
        "source": "Somebody else",
        "subject": "Something",
        "study": "other",
        "quantity": "log_val_loss" if claim.quantity == "test_accuracy" else "test_accuracy",
        "test": "contrast" if claim.test != "contrast" else "non-inferiority",
        "direction": "lower" if claim.direction == "higher" else "higher",
        "smallest_effect": 2 * claim.smallest_effect,
        "over": "other",
        "levels": [1, 2],
        "contrast": [{"weight": 1, "variant": "other"}],
    }
    assert set(changes) == set(Claim.model_fields)
    for key, value in changes.items():
        changed = digest(claim.model_copy(update={key: value}))
        assert (changed == before) == (key in ("claim", "source", "subject")), key


def test_the_arms_count_and_the_registration_itself_does_not() -> None:
    claim = CLAIMS["groups_accuracy"]
    before = digest(claim)
    assert digest(claim, STUDY | {"registered": {"groups_accuracy": before}}) == before
    assert digest(claim, dict(reversed(STUDY.items()))) == before
    for other in ({"gn_groups": [1, 2]}, {"seeds": 11}, {"epochs": 7}):
        assert digest(claim, STUDY | other) != before
    assert digest(claim, recipe=RECIPE | {"lr": 0.01}) != before


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(readings, "ALPHA", 0.1), (inference, "DRAWS", 999), (inference, "ALL_WAYS", 2)],
)
def test_so_do_the_rules_of_judgement(
    module: object, name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = CLAIMS["groups_accuracy"]
    before = digest(claim)
    monkeypatch.setattr(module, name, value)
    registration.analysis.cache_clear()
    try:
        assert digest(claim) != before
    finally:
        monkeypatch.undo()
        registration.analysis.cache_clear()
    assert digest(claim) == before


def test_what_the_rules_say_is_known() -> None:
    """Another answer leaves no claim registered: not a change to make unawares."""
    assert registration.analysis() == "fb458cda7143c620"
