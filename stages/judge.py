"""Stage `judge`: the verdict on every claim, from the tables of the studies.

Paths are from `studies/`, a DVC project of its own.
"""

from pathlib import Path

from normlab import files
from normlab.errors import InputError
from normlab.evidence import claims, declared
from normlab.studies import STUDIES

CLAIMS = Path("claims.yaml")
TABLES = Path("reports")
PARAMETERS = Path("../reports/parameters.csv")
METRICS = Path("reports/findings.json")
FINDINGS = Path("reports/findings.csv")


def main() -> None:
    """Judge all claims; write the findings as a table, and the metrics."""
    told = declared.load(CLAIMS).claims
    tables = {study: files.read_table(TABLES / f"{study}.csv") for study in STUDIES}
    try:
        found = claims.judge(told, tables, files.read_table(PARAMETERS))
    except InputError as error:
        raise InputError(f"{CLAIMS}: {error}") from None
    files.write_table(FINDINGS, claims.table(found))
    files.write_metrics(METRICS, claims.metrics(found))
