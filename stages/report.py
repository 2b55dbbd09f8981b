"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path
from typing import Any

from normlab import files, params
from normlab.report import page, sections

REPORTS = Path("reports")
STUDIES = Path("reports/studies")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
VARIANTS = ("bn_l1", "gn", "ln")
LOCKS = ("dvc.lock", "studies/dvc.lock")
CONVERGENCE = ("groups", "layer_norm", "replication")


def main() -> None:
    """Write the page and its short form."""
    found = read()
    files.write(REPORTS / "report.html", page.render(found).encode())
    files.write(REPORTS / "README.md", page.readme(found).encode())


def read() -> sections.Inputs:
    """Gather what the other stages wrote."""
    names: dict[str, Any] = {"dtype": {"setting": str}}
    return sections.Inputs(
        metrics=files.read_json(REPORTS / "metrics.json"),
        test_curves=files.read_table(REPORTS / "test_curves.csv"),
        histories={v: files.read_table(REPORTS / "history" / f"{v}.csv") for v in VARIANTS},
        parameters=files.read_table(REPORTS / "parameters.csv"),
        misclassified=files.read_table(REPORTS / "misclassified.csv"),
        predictions=files.read_table(REPORTS / "predictions.csv"),
        images=files.read_images(MISCLASSIFIED_IMAGES),
        studies={s: files.read_table(STUDIES / f"{s}.csv", **names) for s in sections.STUDIES},
        study_histories={
            s: files.read_table(STUDIES / f"{s}_history.csv", **names) for s in CONVERGENCE
        },
        weights=files.read_table(STUDIES / "l1_weights.csv", **names),
        findings=files.read_json(REPORTS / "findings.json"),
        findings_table=files.read_text(REPORTS / "findings.md"),
        reported=params.mapping(Path("studies/claims.yaml"))["reported"],
        params=params.mapping(Path("params.yaml")),
        study_params=params.mapping(Path("studies/params.yaml")),
        locks={lock: params.mapping(Path(lock))["stages"] for lock in LOCKS},
        requirements=files.read_text(Path("requirements.lock")),
    )
