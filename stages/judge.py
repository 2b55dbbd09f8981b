"""Stage `judge`: the verdict on every claim, from the tables of the studies.

Paths are from `studies/`, a DVC project of its own.
"""

from collections.abc import Mapping
from pathlib import Path

from normlab import files, params, studies
from normlab.errors import InputError
from normlab.evidence import claims, declared, registration
from normlab.evidence.declared import Claim
from normlab.studies import STUDIES
from stages import history
from stages.history import Standing

PARAMS = Path("../params.yaml")
OWN = Path("params.yaml")
CLAIMS = Path("claims.yaml")
TABLES = Path("reports")
PARAMETERS = Path("../reports/parameters.csv")
METRICS = Path("reports/findings.json")
FINDINGS = Path("reports/findings.csv")

TRIALS, LAYERS = "study variant seed test_accuracy", "study variant layer parameters"
"""Columns that are needed."""


def main() -> None:
    """Judge all claims; write the findings as a table, and the metrics."""
    told = declared.load(CLAIMS)
    tables = {study: files.read_table(TABLES / f"{study}.csv", TRIALS) for study in STUDIES}
    layers = files.read_table(PARAMETERS, LAYERS)
    try:
        found = claims.judge(told.claims, told.smallest_error_ratio, tables, layers)
    except InputError as error:
        raise InputError(f"{CLAIMS}: {error}") from None
    known = standings(told.claims)
    for finding in found:
        finding["registration"] = known.get(finding["name"])
    if "cannot be seen" in known.values():
        print("registrations cannot be seen: this clone lacks their part of Git's history")
    files.write_table(FINDINGS, claims.table(found))
    files.write_metrics(METRICS, claims.metrics(found))


def standings(told: Mapping[str, Claim]) -> dict[str, Standing]:
    """Say of each claim that trials speak to whether it was registered before they ran."""
    base, own = params.load(PARAMS), params.load(OWN, studies.Settings)
    known: dict[str, Standing] = {}
    for study in STUDIES:
        seeds = [seed for arm in studies.arms(study, own, base) for seed in studies.seeds(own, arm)]
        registered = getattr(own, study).registered
        for name, digest in registration.digests(told, study, own, base).items():
            known[name] = "post hoc"
            if registered.get(name) == digest:
                known[name] = history.standing(digest, OWN, seeds, TABLES / f"{study}.csv")
    return known
