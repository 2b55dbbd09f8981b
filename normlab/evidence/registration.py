"""What decides a claim, as a digest: to commit it before the trials are run registers the claim.

A study's trials take their seeds from the digests of its registered claims (`studies.seeds`), so
that results with these seeds cannot be older than the claims.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from normlab.evidence import readings
from normlab.evidence.declared import Claim
from normlab.evidence.readings import Kind, Question, Trials
from normlab.params import Params
from normlab.studies import RECIPE, Studies

WORDING = {"claim", "source", "subject", "twin"}
"""May be changed freely; a twin is a claim of its own."""


def digest(
    claim: Claim, sections: Mapping[str, Mapping[str, Any]], recipe: Mapping[str, Any]
) -> str:
    """Give the digest of all that decides a claim, 16 hexadecimal digits.

    Parameters
    ----------
    claim
        Of which study, quantity, arms, direction, test and smallest effect count, its wording not.
    sections
        The parameters of its study, and of those that have trained arms of it, by name: they say
        what the arms are.
    recipe
        The parameters of the pipeline that the studies read.

    Notes
    -----
    What the rules of judgement make of known trials counts too: see `analysis`.
    """
    decisive = {
        "claim": claim.model_dump(exclude=WORDING, exclude_defaults=True),
        "studies": dict(sections),
        "recipe": dict(recipe),
        "analysis": analysis(),
    }
    return _digest(decisive)


def digests(claims: Mapping[str, Claim], study: str, own: Studies, base: Params) -> dict[str, str]:
    """Give the digest of every claim on a study, by name, from the parameters as they are."""
    places = [arm.trained_in for arm in own[study].arms.values() if arm.trained_in]
    names = [study, *(place.partition(".")[0] for place in places)]
    left_out: Any = {"registered": True, "arms": {"__all__": {"label"}}}
    sections = {n: own[n].model_dump(exclude_unset=True, exclude=left_out) for n in names}
    recipe = base.model_dump(include={*RECIPE.split()})
    return {
        name: digest(claim, sections, recipe)
        for name, claim in claims.items()
        if claim.study == study
    }


@cache
def analysis() -> str:
    """Give the digest of what the rules of judgement say of known trials.

    It stays as it is while they say the same, to six digits, however their code is written.
    """
    # Whole numbers of no particular order; each arm somewhat above the one before.
    arms = [
        np.array([9900 + 4 * arm + (13 * seed * seed + 7 * arm * seed) % 11 for seed in range(12)])
        / 10_000
        for arm in range(4)
    ]
    asked: list[tuple[Kind, Trials]] = [
        ("contrast", Trials(arms[:2], [-1.0, 1.0])),
        ("contrast", Trials([arm[:8] for arm in arms[:2]], [-1.0, 1.0])),
        ("contrast", Trials(arms[2:], [1.0, -1.0])),
        ("contrast", Trials(arms, [1.0, -1.0, -1.0, 1.0])),
        ("trend", Trials(arms, [-1.0, 0.0, 0.0, 1.0])),
        ("non-inferiority", Trials(arms[:2], [1.0, -1.0])),
    ]
    said: list[Any] = []
    for least in (0.0001, 0.001, 0.01):
        for kind, trials in asked:
            question = Question(kind, 1, least, family=20)
            found = readings.read(question, trials)
            said.append([x if isinstance(x, str | bool) else f"{x:.6g}" for x in found])
            said.append(readings.where(question, trials.arms))
    return _digest(said)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
