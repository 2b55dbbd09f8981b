"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path

import pandas as pd

from normlab import files, params
from normlab.report import page, sections
from normlab.studies import STUDIES

REPORTS = Path("reports")
TABLES = Path("reports/studies")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
LOCKS = ("dvc.lock", "studies/dvc.lock")
COUNTS = dict.fromkeys(("seeds", "trials"), "Int64")
CONVERGENCE = ("groups", "layer_norm", "replication")


def main() -> None:
    """Write the page and its short form."""
    found = read()
    files.write(REPORTS / "report.html", page.render(found).encode())
    files.write(REPORTS / "README.md", page.readme(found).encode())


def read() -> sections.Inputs:
    """Gather what the other stages wrote."""
    summary = files.read_table(REPORTS / "summary.csv")
    histories = [REPORTS / "history" / f"{v}.csv" for v in summary["variant"].unique()]
    return sections.Inputs(
        summary=summary,
        comparisons=files.read_table(REPORTS / "comparisons.csv"),
        test_curves=files.read_table(REPORTS / "test_curves.csv"),
        histories=pd.concat(map(files.read_table, histories)),
        parameters=files.read_table(REPORTS / "parameters.csv"),
        misclassified=files.read_table(REPORTS / "misclassified.csv"),
        images=files.read_images(MISCLASSIFIED_IMAGES),
        studies={s: files.read_table(TABLES / f"{s}.csv") for s in STUDIES},
        study_summaries={s: files.read_table(TABLES / f"{s}_summary.csv") for s in STUDIES},
        study_histories={s: files.read_table(TABLES / f"{s}_history.csv") for s in CONVERGENCE},
        weights=files.read_table(TABLES / "l1_weights.csv"),
        findings=files.read_table(REPORTS / "findings.csv", dtype=COUNTS),
        reported=params.mapping(Path("studies/claims.yaml"))["reported"],
        params=params.mapping(Path("params.yaml")),
        study_params=params.mapping(Path("studies/params.yaml")),
        # DVC has them in the order in which they first ended, which no input decides.
        locks={lock: dict(sorted(params.mapping(Path(lock))["stages"].items())) for lock in LOCKS},
        requirements=files.read_text(Path("requirements.lock")),
    )
