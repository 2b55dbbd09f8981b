"""Stage `report`: the page that shows it all, and its short form."""

from pathlib import Path
from typing import Any

from normlab import exhibits, params, report
from normlab.errors import reported
from stages import files, inputs

REPORTS = Path("reports")
STUDIES = Path("reports/studies")
MISCLASSIFIED_IMAGES = Path("data/misclassified.safetensors")
VARIANTS = ("bn_l1", "gn", "ln")
LOCKS = ("dvc.lock", "studies/dvc.lock")
CONVERGENCE = ("groups", "layer_norm", "replication")


def main() -> None:
    """Write the page and its short form."""
    found = read()
    files.write(REPORTS / "report.html", report.render(found).encode())
    files.write(REPORTS / "README.md", report.readme(found).encode())


def read() -> exhibits.Inputs:
    """Gather what the other stages wrote."""
    names: dict[str, Any] = {"dtype": {"setting": str}}
    return exhibits.Inputs(
        metrics=inputs.metrics(REPORTS / "metrics.json"),
        test_curves=inputs.table(REPORTS / "test_curves.csv"),
        histories={v: inputs.table(REPORTS / "history" / f"{v}.csv") for v in VARIANTS},
        parameters=inputs.table(REPORTS / "parameters.csv"),
        misclassified=inputs.table(REPORTS / "misclassified.csv"),
        predictions=inputs.table(REPORTS / "predictions.csv"),
        images=inputs.images(MISCLASSIFIED_IMAGES),
        studies={s: inputs.table(STUDIES / f"{s}.csv", **names) for s in exhibits.STUDIES},
        study_histories={
            s: inputs.table(STUDIES / f"{s}_history.csv", **names) for s in CONVERGENCE
        },
        weights=inputs.table(STUDIES / "l1_weights.csv", **names),
        findings=inputs.metrics(REPORTS / "findings.json"),
        findings_table=inputs.text(REPORTS / "findings.md"),
        reported=params.mapping(Path("studies/claims.yaml"))["reported"],
        params=params.mapping(Path("params.yaml")),
        study_params=params.mapping(Path("studies/params.yaml")),
        locks={lock: params.mapping(Path(lock))["stages"] for lock in LOCKS},
        requirements=inputs.text(Path("requirements.lock")),
    )


if __name__ == "__main__":
    with reported():
        main()
