"""The digest of a claim: what changes it, and what does not."""

from pathlib import Path
from typing import Any

import pytest

from normlab import params, studies
from normlab.evidence import declared, inference, readings, registration
from normlab.evidence.declared import Claim

ROOT = Path(__file__).parents[2]
CLAIMS = declared.load(ROOT / "studies/claims.yaml").claims
STUDIES = studies.load(ROOT / "studies/params.yaml")
BASE = params.load(ROOT / "params.yaml")
SECTIONS: dict[str, Any] = {
    "groups": {"arms": {"one": {"variant": "gn"}}, "seeds": 10, "epochs": 6},
    "norms": {"epochs": 6},
}
RECIPE = {"lr": 0.015, "batch_size": 128}


def digest(claim: Claim, sections: Any = SECTIONS, recipe: Any = RECIPE) -> str:
    return registration.digest(claim, sections, recipe)


def digests(own: studies.Studies = STUDIES, base: params.Params = BASE) -> dict[str, str]:
    """Of the claims on the study `groups`, one of whose arms `norms` has trained."""
    return registration.digests(CLAIMS, "groups", own, base)


def changed(study: str, **values: Any) -> dict[str, studies.Study]:
    """The studies, with other parameters of one."""
    told = STUDIES[study].model_dump(exclude_unset=True) | values
    return STUDIES | {study: studies.Study.model_validate(told)}


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
        "than": 0.5,
        "twin": declared.Twin(study="other"),
        "places": {"there": declared.Place(where="there", study="other")},
    }
    assert set(changes) == set(Claim.model_fields)
    for key, value in changes.items():
        after = digest(claim.model_copy(update={key: value}))
        assert (after == before) == (key in ("claim", "source", "subject", "twin")), key


@pytest.mark.parametrize("name", CLAIMS)
def test_a_key_left_out_says_what_its_default_does(name: str) -> None:
    """So that a key that comes to be later leaves what is registered."""
    told = Claim.model_validate(CLAIMS[name].model_dump())
    assert told.model_fields_set == {*Claim.model_fields}
    assert digest(told) == digest(CLAIMS[name])


def test_every_parameter_of_the_studies_counts_in_whatever_order() -> None:
    claim = CLAIMS["groups_accuracy"]
    before = digest(claim)
    backwards = {
        name: dict(reversed(section.items())) for name, section in reversed(SECTIONS.items())
    }
    assert digest(claim, backwards) == before
    for study, section in SECTIONS.items():
        changes: list[dict[str, Any]] = [{"arms": {}}, {"seeds": 11}, {"epochs": 7}]
        for other in changes:
            assert digest(claim, SECTIONS | {study: section | other}) != before
    assert digest(claim, {"groups": SECTIONS["groups"]}) != before
    assert digest(claim, recipe=RECIPE | {"lr": 0.01}) != before


def test_the_arms_count_and_neither_their_labels_nor_the_registration() -> None:
    before = digests()
    assert [*before] == [name for name, claim in CLAIMS.items() if claim.study == "groups"]
    arms = STUDIES["groups"].model_dump(exclude_unset=True)["arms"]
    assert digests(changed("groups", registered={"groups_accuracy": "0"})) == before
    labels = {name: arm | {"label": "Other words"} for name, arm in arms.items()}
    assert digests(changed("groups", arms=labels)) == before
    assert digests(changed("l1", epochs=7)) == before
    fewer = {name: arm for name, arm in arms.items() if name != "one"}
    others: list[dict[str, Any]] = [{"seeds": 11}, {"epochs": 7}, {"train_size": 100}]
    others.append({"arms": fewer})
    # Those of `norms` say how the arm that it has trained was.
    studies_otherwise = [changed("groups", **other) for other in others]
    studies_otherwise += [changed("norms", **other) for other in others[:3]]
    for own in studies_otherwise:
        assert not {*digests(own).values()} & {*before.values()}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_of_the_pipeline_s_parameters_those_count_that_the_studies_read() -> None:
    before = digests()
    assert digests(base=BASE.model_copy(update={"epochs": 99, "l1_lambda": 0.5})) == before
    for key in studies.RECIPE.split():
        other = digests(base=BASE.model_copy(update={key: "other"}))
        assert not {*other.values()} & {*before.values()}, key


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
