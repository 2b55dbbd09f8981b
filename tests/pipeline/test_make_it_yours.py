"""What docs/make-it-yours.md says to do, done as it says, in a copy of the project."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.test_pipeline import ROOT, copy, run, set_params, stages_run
from tests.pipeline.test_studies import BUDGET

PAGE = (ROOT / "docs/make-it-yours.md").read_text()
pytestmark = pytest.mark.timeout(3600)


def block(kind: str, first: str) -> str:
    """A piece of code on the page: that of a kind whose first word is this."""
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)
    (text,) = (text for text in found if text.split()[0] == first)
    return str(text)


def insert(file: Path, text: str, before: str) -> None:
    content = file.read_text()
    assert content.count(before) == 1
    file.write_text(content.replace(before, text + before))


def test_a_fourth_normalization_is_a_function_its_entry_and_a_stage(tmp_path: Path) -> None:
    copy(tmp_path)
    set_params(tmp_path / "studies/params.yaml", BUDGET)
    networks = tmp_path / "normlab/network/networks.py"
    stage = block("yaml", "train_rms:")
    assert len(stage.splitlines()) <= 8
    insert(networks, block("python", "def") + "\n\n", before="class Variant(NamedTuple):")
    entry = block("python", 'Variant("rms",').strip()
    insert(networks, f"        {entry},\n", before="    )\n}\n")
    insert(tmp_path / "dvc.yaml", stage + "\n", before="  evaluate:\n")

    ran = stages_run(run(tmp_path, "dvc", "repro", "reports/dvc.yaml"))
    assert "train_rms" in {name.split(":")[-1] for name in ran}
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    assert list(metrics["accuracy"]) == ["bn_l1", "gn", "ln", "rms"]
    assert len(pd.read_csv(tmp_path / "reports/comparisons.csv")) == 6
    assert (tmp_path / "reports/figures/misclassified_rms.png").exists()
    page = (tmp_path / "reports/report.html").read_text()
    assert "RMS norm</h3>" in page
    assert "Layer norm less RMS norm" in page
    assert "| RMS norm |" in (tmp_path / "reports/README.md").read_text()


def test_a_claim_is_an_entry(tmp_path: Path) -> None:
    """Judged by the committed tables of the studies, no trial runs."""
    for name in ("reports", "studies"):
        (tmp_path / name).mkdir()
    claims = (ROOT / "studies/claims.yaml").read_text()
    claims += (
        "\n  new:\n    claim: Group norm with 7 groups is better than with 1\n    source: Us\n"
        "    study: groups\n    quantity: test_accuracy\n    subject: 7 groups instead of 1\n"
        "    test: contrast\n    direction: higher\n    smallest_effect: 0.001\n    contrast:\n"
        "      - {weight: 1, gn_groups: 7}\n      - {weight: -1, gn_groups: 1}\n"
    )
    copy(tmp_path)
    (tmp_path / "studies/claims.yaml").write_text(claims)
    (tmp_path / "reports/studies").mkdir()
    for table in [*(ROOT / "reports/studies").glob("*.csv"), ROOT / "reports/parameters.csv"]:
        target = tmp_path / table.relative_to(ROOT)
        target.write_bytes(table.read_bytes())
    ran = run(tmp_path, "dvc", "repro", "--single-item", "studies/dvc.yaml:judge")
    assert stages_run(ran) == ["studies/dvc.yaml:judge"]
    assert pd.read_csv(tmp_path / "reports/findings.csv")["name"].iloc[-1] == "new"
