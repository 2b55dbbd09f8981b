"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path

import pandas as pd

from normlab import files, params
from normlab.data.datasets import MNIST
from normlab.report import page
from normlab.report.figure_tables import bounded, named
from normlab.report.inputs import Inputs, StudyTables, records
from normlab.studies import STUDIES

REPORTS = Path("reports")
STUDIES_REPORTS = Path("studies/reports")
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
    summary = bounded(files.read_table(REPORTS / "summary.csv"))
    curves, parameters, wrong = (
        named(files.read_table(REPORTS / f"{name}.csv"), summary)
        for name in ("test_curves", "parameters", "misclassified")
    )
    variants = summary["variant"].unique()
    histories = [files.read_table(REPORTS / "history" / f"{one}.csv") for one in variants]
    pairs = files.read_table(REPORTS / "comparisons.csv")
    pairs[["low", "high"]] = pairs[["low", "high"]].clip(-1, 1)
    findings = records(files.read_table(STUDIES_REPORTS / "findings.csv", dtype=COUNTS))
    return Inputs(
        dataset=MNIST,
        summary=summary,
        comparisons=records(pairs),
        test_curves=curves,
        histories=named(pd.concat(histories), summary),
        parameters=parameters,
        misclassified=wrong,
        images=files.read_images(MISCLASSIFIED_IMAGES),
        studies={one: read_study(one) for one in STUDIES if tables_of(one)[0].exists()},
        findings={row["name"]: row for row in findings},
        reported=params.mapping(Path("studies/claims.yaml"))["reported"],
        params=params.mapping(Path("params.yaml")),
        study_params=params.mapping(Path("studies/params.yaml")),
        # DVC has them in the order in which they first ended, which no input decides.
        locks={lock: dict(sorted(params.mapping(Path(lock))["stages"].items())) for lock in LOCKS},
        requirements=files.read_text(Path("requirements.lock")),
    )


def tables_of(study: str) -> list[Path]:
    """Name the tables of a study: its summary, trials, history and weights."""
    return [
        STUDIES_REPORTS / f"{study}{kind}.csv" for kind in ("_summary", "", "_history", "_weights")
    ]


def read_study(study: str) -> StudyTables:
    """Read the tables of a study, the arms named as its summary labels them."""
    first, *others = (files.read_table(path) for path in tables_of(study))
    summary = bounded(first)
    trials, history, weights = (named(table, summary) for table in others)
    return StudyTables(trials, summary, history, weights)
