"""What docs/make-it-yours.md says to do, done as it says, in a copy of the project."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo
from safetensors.numpy import load_file

from tests.pipeline.copies import ROOT, TRAIN, change, copy, copy_of, run, set_params, stages_run

PAGE = (ROOT / "docs/make-it-yours.md").read_text()
pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("elsewhere")]


def block(kind: str, first: str) -> str:
    """A piece of code on the page: that of a kind which begins with this."""
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)
    (text,) = (text for text in found if text.lstrip().startswith(first))
    return str(text)


def insert(file: Path, text: str, before: str) -> None:
    content = file.read_text()
    assert content.count(before) == 1
    file.write_text(content.replace(before, text + before))


def place_studies(project: Path) -> None:
    """Put the committed results of the studies in place, so that no trial of theirs runs."""
    for path in [*(ROOT / "studies/reports").iterdir(), ROOT / "studies/dvc.lock"]:
        target = project / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())


def git_apply(project: Path, diff: str) -> None:
    subprocess.run(["git", "apply", "-"], cwd=project, input=diff, text=True, check=True)


def trained(project: Path) -> tuple[dict[str, bytes], str]:
    """Run the stages that train; give the models, by their path, and what was said."""
    ran = run(project, "dvc", "repro", *TRAIN)
    assert sorted(set(stages_run(ran)) - {"download"}) == TRAIN
    return models(project), ran.stderr


def models(project: Path) -> dict[str, bytes]:
    found = sorted((project / "models").rglob("*.safetensors"))
    return {str(path.relative_to(project)): path.read_bytes() for path in found}


def test_a_fourth_normalization_is_a_function_its_entry_and_a_stage(tmp_path: Path) -> None:
    copy(tmp_path)
    place_studies(tmp_path)
    networks = tmp_path / "normlab/network/networks.py"
    stage = block("yaml", "train_rms:")
    assert len(stage.splitlines()) <= 8
    insert(networks, block("python", "def") + "\n\n", before="class Variant(NamedTuple):")
    entry = block("python", 'Variant("rms",').strip()
    insert(networks, f"        {entry},\n", before="    )\n}\n")
    insert(tmp_path / "dvc.yaml", stage + "\n", before="  evaluate:\n")

    assert "train_rms" in stages_run(run(tmp_path, "dvc", "repro"))
    run(tmp_path, "dvc", "repro", "reports/dvc.yaml")
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    assert list(metrics["accuracy"]) == ["bn_l1", "gn", "ln", "rms"]
    assert len(pd.read_csv(tmp_path / "reports/comparisons.csv")) == 6
    assert (tmp_path / "reports/figures/misclassified_rms.png").exists()
    page = (tmp_path / "reports/report.html").read_text()
    assert "RMS norm</h3>" in page
    assert "Layer norm less RMS norm" in page
    assert "| RMS norm |" in (tmp_path / "reports/README.md").read_text()


def test_a_parameter_is_what_the_page_shows(template: Path, tmp_path: Path) -> None:
    copy_of(template, tmp_path)
    without = models(tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text(file.read_text() + block("yaml", "dropout:"))
    git_apply(tmp_path, block("diff", "--- a/dvc.yaml"))
    at_zero, said = trained(tmp_path)
    assert at_zero == without
    assert "PyTorch" not in said

    set_params(file, {"dropout": "0.2"})
    dropped, said = trained(tmp_path)
    assert dropped.keys() == without.keys()
    assert all(dropped[path] != without[path] for path in without)
    assert "PyTorch, since the engine does not know average, flatten, dropout, linear" in said
    assert stages_run(run(tmp_path, "dvc", "repro")) == ["evaluate", "plot"]
    run(tmp_path, "dvc", "repro", "--force", "--single-item", "train_gn")
    for path in (tmp_path / "models/gn").rglob("*.safetensors"):
        assert path.read_bytes() == dropped[str(path.relative_to(tmp_path))]


def test_other_channels_are_a_line_and_the_known_answer(tmp_path: Path) -> None:
    copy(tmp_path)
    git_apply(tmp_path, block("diff", "--- a/normlab/network/architecture.py"))
    refused = run(tmp_path, "dvc", "repro", check=False)
    answers = re.search(r"known answer came out as (\w+), allowed: (\w+)", refused.stderr)
    assert answers
    assert refused.returncode != 0
    known = tmp_path / "normlab/network/known_answer.py"
    constant = f'ARITHMETIC = "{answers[2]}"'
    assert known.read_text().count(constant) == 1
    known.write_text(known.read_text().replace(constant, f'ARITHMETIC = "{answers[1]}"'))

    assert stages_run(run(tmp_path, "dvc", "repro"))[-2:] == ["evaluate", "plot"]
    found = list((tmp_path / "models").rglob("*.safetensors"))
    assert len(found) == 6
    for model in found:
        weights = load_file(model)
        assert weights["conv3.weight"].shape == (8, 16, 1, 1)
        assert weights["conv4.weight"].shape == (12, 8, 3, 3)
    counted = pd.read_csv(tmp_path / "reports/parameters.csv").query("layer == 'conv3'")
    assert set(counted["parameters"]) == {8 * 16}


def test_a_study_is_a_section_and_its_stages(tmp_path: Path) -> None:
    copy(tmp_path)
    file = tmp_path / "studies/params.yaml"
    file.write_text(f"{file.read_text()}\n{block('yaml', '# Layer norm: does')}")
    change(file, {"decay": {"seeds": 2, "epochs": 1, "train_size": 100}})
    git_apply(tmp_path, block("diff", "--- a/studies/dvc.yaml"))
    ran = run(tmp_path, "dvc", "--cd", "studies", "repro", "score@decay")
    assert stages_run(ran) == ["download@mnist", "decay", "score@decay"]
    table = pd.read_csv(tmp_path / "studies/reports/decay.csv")
    assert table["arm"].tolist() == ["ln_constant", "ln_constant", "ln_cosine", "ln_cosine"]
    with Repo(str(tmp_path / "studies")) as repo:
        (judge,) = (stage for stage in repo.index.stages if stage.name == "judge")
    assert "reports/decay.csv" in {dep.def_path for dep in judge.deps}


def test_a_claim_is_an_entry(tmp_path: Path) -> None:
    """Judged by the committed tables of the studies, no trial runs."""
    claims = (ROOT / "studies/claims.yaml").read_text()
    claims += (
        "\n  new:\n    claim: Group norm with 7 groups is better than with 1\n    source: Us\n"
        "    study: groups\n    quantity: test_accuracy\n    subject: 7 groups instead of 1\n"
        "    test: contrast\n    direction: higher\n    smallest_effect: 0.001\n    contrast:\n"
        "      - {weight: 1, arm: seven}\n      - {weight: -1, arm: one}\n"
    )
    copy(tmp_path)
    (tmp_path / "studies/claims.yaml").write_text(claims)
    place_studies(tmp_path)
    counted = "reports/parameters.csv"
    (tmp_path / counted).write_bytes((ROOT / counted).read_bytes())
    ran = run(tmp_path, "dvc", "--cd", "studies", "repro", "--single-item", "judge")
    assert stages_run(ran) == ["judge"]
    assert pd.read_csv(tmp_path / "studies/reports/findings.csv")["name"].iloc[-1] == "new"
