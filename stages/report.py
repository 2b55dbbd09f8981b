"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path

import pandas as pd

from normlab import files, params
from normlab.data.datasets import MNIST
from normlab.report import page
from normlab.report.figure_tables import named
from normlab.report.inputs import Inputs, StudyTables
from normlab.studies import STUDIES

REPORTS = Path("reports")
TABLES = Path("reports/studies")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
LOCKS = ("dvc.lock", "studies/dvc.lock")
COUNTS = dict.fromkeys(("seeds", "trials"), "Int64")


def main() -> None:
    """Write the page and its short form."""
    inputs = read()
    files.write(REPORTS / "report.html", page.render(inputs).encode())
    files.write(REPORTS / "README.md", page.readme(inputs).encode())


def read() -> Inputs:
    """Gather what the other stages wrote."""
    summary = files.read_table(REPORTS / "summary.csv")
    histories = [REPORTS / "history" / f"{v}.csv" for v in summary["variant"].unique()]
    return Inputs(
        dataset=MNIST,
        summary=summary,
        comparisons=files.read_table(REPORTS / "comparisons.csv"),
        test_curves=files.read_table(REPORTS / "test_curves.csv"),
        histories=pd.concat(map(files.read_table, histories)),
        parameters=files.read_table(REPORTS / "parameters.csv"),
        misclassified=files.read_table(REPORTS / "misclassified.csv"),
        images=files.read_images(MISCLASSIFIED_IMAGES),
        studies={s: read_study(s) for s in STUDIES if (TABLES / f"{s}_summary.csv").exists()},
        findings=files.read_table(REPORTS / "findings.csv", dtype=COUNTS),
        reported=params.mapping(Path("studies/claims.yaml"))["reported"],
        params=params.mapping(Path("params.yaml")),
        study_params=params.mapping(Path("studies/params.yaml")),
        locks={lock: params.mapping(Path(lock))["stages"] for lock in LOCKS},
        requirements=files.read_text(Path("requirements.lock")),
    )


def read_study(study: str) -> StudyTables:
    """Read the tables of a study, the arms named as its summary labels them."""
    summary = files.read_table(TABLES / f"{study}_summary.csv")
    trials = files.read_table(TABLES / f"{study}.csv")
    history = files.read_table(TABLES / f"{study}_history.csv")
    path = TABLES / f"{study}_weights.csv"
    weights = named(files.read_table(path), summary) if path.exists() else None
    return StudyTables(named(trials, summary), summary, named(history, summary), weights)
