"""Stage `judge`: the verdict on every claim, from the tables of the studies.

Paths are from `studies/`, a DVC project of its own.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from normlab import files, params, studies
from normlab.errors import InputError
from normlab.evidence import claims, declared, registration
from normlab.evidence.declared import Claim
from normlab.studies import Studies
from stages import history
from stages.history import Standing

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
CLAIMS = Path("claims.yaml")
TABLES = Path("reports")
PARAMETERS = Path("../reports/parameters.csv")
METRICS = Path("reports/findings.json")
FINDINGS = Path("reports/findings.csv")

TRIALS, LAYERS = "study variant arm seed test_accuracy", "study variant layer parameters"
"""Columns that are needed."""


def main() -> None:
    """Judge all claims; write the findings as a table, and the metrics."""
    told, own = declared.load(CLAIMS), studies.load(OWN)
    every = told.every()
    layers = files.read_table(PARAMETERS, LAYERS)
    try:
        found = claims.judge(every, told.smallest_error_ratio, tables(every, own), layers)
    except InputError as error:
        raise InputError(f"{CLAIMS}: {error}") from None
    known = standings(every, own)
    for finding in found:
        finding["registration"] = known.get(finding["name"])
    if "cannot be seen" in known.values():
        print("registrations cannot be seen: this clone lacks their part of Git's history")
    files.write_table(FINDINGS, claims.table(found))
    files.write_metrics(METRICS, claims.metrics(found))


def tables(every: Mapping[str, Claim], own: Studies) -> dict[str, pd.DataFrame]:
    """Read the table of each study that is spoken of; those that choose rates have none."""
    spoken_of = {claim.study for claim in every.values()}
    return {study: trials(study, own) for study in own if study in spoken_of}


def trials(study: str, own: Studies) -> pd.DataFrame:
    """Read the table of a study, with its arms' names for people."""
    table = files.read_table(TABLES / f"{study}.csv", TRIALS)
    labels = {name: arm.label for name, arm in own[study].arms.items()}
    return table.assign(label=[labels.get(arm) or arm for arm in table["arm"]])


def standings(told: Mapping[str, Claim], own: Studies) -> dict[str, Standing]:
    """Say of each claim that trials speak to whether it was registered before they ran."""
    base = params.load(PARAMS)
    known: dict[str, Standing] = {}
    for study in own:
        seeds = [trial.seed for trial in studies.planned(own, study, base)]
        for name, digest in registration.digests(told, study, own, base).items():
            known[name] = "post hoc"
            if own[study].registered.get(name) == digest:
                known[name] = history.standing(digest, OWN, seeds, TABLES / f"{study}.csv")
    return known
