"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path

import pandas as pd

from normlab import files, params
from normlab.data import datasets
from normlab.evidence import declared
from normlab.evidence.verdicts import OF_FINDINGS
from normlab.report import page
from normlab.report.figure_tables import READ, SUMMARY, bounded, named
from normlab.report.inputs import Inputs, StudyTables, records

REPORTS = Path("reports")
SPLIT = Path("data/train")
STUDIES_REPORTS = Path("studies/reports")
CLAIMS = Path("studies/claims.yaml")
RATES, RECIPES = STUDIES_REPORTS / "rates.csv", STUDIES_REPORTS / "recipes.csv"
STUDY_PARAMS = Path("studies/params.yaml")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
LOCKS = ("dvc.lock", "studies/dvc.lock")
COUNTS = dict.fromkeys(("seeds", "trials", "seeds_needed"), "Int64")

OF_PAIRS = "label other_label verdict difference low high seeds images min_p"
OF_RATES = "study arm lr seeds as_well chosen"
OF_RECIPES = "recipe seeds mean low high chosen"
OF_STUDY = ["study variant label measure mean low high", "study variant seed test_accuracy"]
OF_STUDY += ["study variant seed epoch", "study variant low high share"]
"""Columns that are needed; of a study those of its summary, trials, history and weights."""


def main() -> None:
    """Write the page and its short form."""
    inputs = read()
    files.write(REPORTS / "report.html", page.render(inputs).encode())
    files.write(REPORTS / "README.md", page.readme(inputs).encode())


def read() -> Inputs:
    """Gather what the other stages wrote."""
    summary = bounded(files.read_table(REPORTS / "summary.csv", SUMMARY))
    curves, parameters, wrong = (
        named(files.read_table(REPORTS / f"{name}.csv", READ[name]), summary)
        for name in ("test_curves", "parameters", "misclassified")
    )
    variants = summary["variant"].unique()
    histories = [
        files.read_table(REPORTS / "history" / f"{one}.csv", READ["history"]) for one in variants
    ]
    pairs = files.read_table(REPORTS / "comparisons.csv", OF_PAIRS)
    pairs[["low", "high"]] = pairs[["low", "high"]].clip(-1, 1)
    findings = records(files.read_table(STUDIES_REPORTS / "findings.csv", OF_FINDINGS, COUNTS))
    told, own = declared.load(CLAIMS), params.mapping(STUDY_PARAMS)
    dataset = datasets.read(SPLIT)
    return Inputs(
        dataset=dataset,
        summary=summary,
        comparisons=records(pairs),
        test_curves=curves,
        histories=named(pd.concat(histories), summary),
        parameters=parameters,
        misclassified=wrong,
        images=files.read_images(MISCLASSIFIED_IMAGES, wrong["index"], dataset.side),
        studies={one: read_study(one) for one in own if tables_of(one)[0].exists()},
        findings={row["name"]: row for row in findings},
        claims=told.every(),
        rates=files.read_table(RATES, OF_RATES) if RATES.exists() else pd.DataFrame(),
        recipes=records(files.read_table(RECIPES, OF_RECIPES)) if RECIPES.exists() else [],
        reported=told.reported,
        smallest_difference=told.smallest_difference,
        params=params.mapping(Path("params.yaml")),
        study_params=own,
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
    first, *others = map(files.read_table, tables_of(study), OF_STUDY)
    summary = bounded(first)
    trials, history, weights = (named(table, summary) for table in others)
    return StudyTables(trials, summary, history, weights)
