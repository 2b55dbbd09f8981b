"""Stage `judge`: the verdict on every claim, from the tables of the studies."""

from pathlib import Path

from normlab import files
from normlab.errors import InputError
from normlab.evidence import claims

CLAIMS = Path("studies/claims.yaml")
TABLES = Path("reports/studies")
PARAMETERS = Path("reports/parameters.csv")
STUDIES = ("groups", "l1", "layer_norm", "batch_size", "replication")
FINDINGS = Path("reports/findings.json")
MARKDOWN = Path("reports/findings.md")


def main() -> None:
    """Judge all claims; write the findings as JSON and as a Markdown table."""
    declared = claims.load(CLAIMS).claims
    tables = {s: files.read_table(TABLES / f"{s}.csv", dtype={"setting": str}) for s in STUDIES}
    try:
        found = claims.judge(declared, tables, files.read_table(PARAMETERS))
    except InputError as error:
        raise InputError(f"{CLAIMS}: {error}") from None
    files.write_metrics(FINDINGS, found)
    files.write(MARKDOWN, claims.markdown(found).encode())
