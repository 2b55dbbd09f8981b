"""`make ci-report`: what a pull request changes, as a comment on it."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from normlab.formatting import MINUS
from tests.pipeline.copies import git, link_environment, make
from tools import ci_report, verify

ROOT = verify.ROOT
NEEDED = (
    "Makefile",
    "normlab/__init__.py",
    "normlab/errors.py",
    "normlab/files.py",
    "normlab/formatting.py",
    "normlab/scratch.py",
    "normlab/yaml12.py",
    "requirements-audit.lock",
    "requirements-dev.lock",
    "requirements.lock",
    "tools/ci_report.py",
    "tools/git.py",
)
SUMMARY = "variant,label\ngn,Group norm\nln,Layer norm\n"
COMPARISONS = "label,other_label,verdict\nGroup norm,Layer norm,no difference shown\n"
FINDINGS = "name,claim,verdict\na,Batch norm converges faster,open\n"


def lock(stages: Mapping[str, tuple[str, str]]) -> str:
    """A lock file of stages: a letter for what each has read, one for what it has written."""
    records = {
        name: {
            "cmd": "run",
            "deps": [{"path": "x", "md5": read * 32}],
            "outs": [{"path": name, "md5": written * 32}],
        }
        for name, (read, written) in stages.items()
    }
    return json.dumps({"schema": "2.0", "stages": records})


def measured(**accuracies: float | str) -> str:
    return json.dumps({"accuracy": accuracies})


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with results, in which `make` finds all installed."""
    for name in NEEDED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    write(
        tmp_path,
        {
            ".gitignore": "/.venv\n/build/\n__pycache__/\n",
            "params.yaml": "epochs: 18\n",
            "dvc.yaml": "params: [params.yaml]\nmetrics: [reports/metrics.json]\n",
            "dvc.lock": lock({"train_gn": ("a", "b"), "evaluate": ("c", "d")}),
            "reports/metrics.json": measured(gn=0.99, ln=0.98),
            "reports/summary.csv": SUMMARY,
            "reports/comparisons.csv": COMPARISONS,
            "studies/reports/findings.csv": FINDINGS,
            "reports/figures/curves.png": "a picture",
        },
    )
    link_environment(tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    subprocess.run([".venv/bin/dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "Begin")
    return tmp_path


def report(folder: Path, *words: str, **variables: str) -> str:
    done = make(folder, "--silent", "ci-report", *words, **variables)
    assert done.returncode == 0, done.stderr
    assert (folder / "build/report.md").read_text() == done.stdout
    return done.stdout


def test_a_report_says_that_nothing_has_changed(project: Path) -> None:
    (project / "README.md").write_text("Documentation\n")
    git(project, "add", "README.md")
    git(project, "commit", "-qm", "Document")
    commit = git(project, "rev-parse", "HEAD").strip()[:10]
    assert (
        report(project)
        == f"""## No change, against main

| test accuracy | before | now | points |
|---|---|---|---|
| Group norm | 99.00 % | 99.00 % | no change |
| Layer norm | 98.00 % | 98.00 % | no change |

Verdicts: no change in 2.

Stages that ran: none.

### Params

no change

### Metrics

no change

### Figures

no change

Compared with commit {commit}.
"""
    )


def test_a_report_begins_with_what_one_decides_by(project: Path) -> None:
    write(
        project,
        {
            "params.yaml": "epochs: 6\n",
            "dvc.lock": lock({"train_gn": ("z", "b"), "evaluate": ("c", "e")}),
            "studies/dvc.lock": lock({"judge": ("a", "b")}),
            "reports/metrics.json": measured(gn=0.985, ln=0.98),
            "reports/comparisons.csv": COMPARISONS.replace("no difference shown", "higher"),
        },
    )
    text = report(project)
    parts = [
        "## What changes, against main",
        f"| Group norm | 99.00 % | 98.50 % | {MINUS}0.50 |\n"
        "| Layer norm | 98.00 % | 98.00 % | no change |",
        "| Group norm less Layer norm | no difference shown | **higher** |",
        "Stages that ran: studies/judge, train_gn, evaluate. "
        "With the outputs that they had before: train_gn.",
        "### Params",
        "| params.yaml | epochs | 18 | 6 |",
        "### Metrics",
        "| reports/metrics.json | accuracy.gn | 0.99 | 0.985 | -0.005 |",
        "### Figures\n\nno change",
    ]
    found = [text.find(part) for part in parts]
    assert -1 not in found, text
    assert found == sorted(found)
    assert "Batch norm converges faster" not in text


def test_what_the_base_did_not_have_or_had_otherwise_is_new(project: Path) -> None:
    git(project, "rm", "-q", "--cached", "dvc.lock", "reports/summary.csv")
    git(project, "rm", "-q", "--cached", "studies/reports/findings.csv")
    old = json.dumps({"gn": {"accuracy": 0.9}})
    write(project, {"reports/metrics.json": old})
    git(project, "add", "reports/metrics.json")
    git(project, "commit", "-qm", "As it was")
    write(project, {"reports/metrics.json": measured(gn=0.99)})
    text = report(project)
    assert "| Group norm | — | 99.00 % | — |" in text
    assert "| Batch norm converges faster | — | **open** |" in text
    assert "Stages that ran: train_gn, evaluate." in text
    (project / "reports/metrics.json").unlink()
    (project / "dvc.lock").unlink()
    text = report(project)
    assert "Test accuracy: not measured." in text
    assert "Stages that ran: none." in text


def test_a_branch_is_compared_with_the_commit_it_comes_from(project: Path) -> None:
    git(project, "checkout", "-qb", "branch")
    git(project, "checkout", "-q", "main")
    write(project, {"params.yaml": "epochs: 30\n"})
    git(project, "commit", "-qam", "Go on")
    git(project, "checkout", "-q", "branch")
    assert report(project).startswith("## No change, against main")


@pytest.mark.parametrize("base", ["nonsense", "--all", "HEAD~7", ""])
def test_a_base_that_is_none_gets_one_line(project: Path, base: str) -> None:
    done = make(project, "--silent", "ci-report", f"BASE={base}")
    assert done.returncode != 0
    assert done.stdout == ""
    line, *after = done.stderr.splitlines()
    assert line.startswith(f"error: BASE: got {base}, allowed: a branch, tag or commit")
    assert all(text.startswith("make: ***") for text in after)
    assert not (project / "build").exists()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("reports/metrics.json", "{[", "reports/metrics.json: cannot be read: "),
        ("reports/metrics.json", "{}", "reports/metrics.json: got {}, allowed: an object of metr"),
        ("reports/metrics.json", "[1]", "reports/metrics.json: got [1], allowed: an object of me"),
        ("reports/metrics.json", measured(gn="x"), "reports/metrics.json: accuracy: got {"),
        ("dvc.lock", "{[", "dvc.lock: cannot be read: "),
        (
            "dvc.yaml",
            "{[",
            "dvc params diff: WARNING: failed to load params in revision 'workspace'",
        ),
    ],
)
def test_a_file_that_cannot_be_read_gets_one_line(
    project: Path, file: str, text: str, said: str
) -> None:
    write(project, {file: f"{text}\n"})
    done = make(project, "--silent", "ci-report")
    assert done.returncode != 0
    assert done.stdout == ""
    line, *after = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")
    assert all(text.startswith("make: ***") for text in after)


def test_figures_are_shown_beside_what_they_were(project: Path) -> None:
    base = git(project, "rev-parse", "HEAD").strip()
    write(project, {"reports/figures/curves.png": "another", "reports/figures/new.png": "fresh"})
    git(project, "add", ".")
    git(project, "commit", "-qm", "Draw")
    head = git(project, "rev-parse", "HEAD").strip()
    write(project, {"reports/figures/drawn.png": "here"})
    summary = project / "summary"
    summary.write_text("What came before\n")
    job = {"GITHUB_REPOSITORY": "us/normlab", "GITHUB_STEP_SUMMARY": str(summary), "PR_HEAD": head}
    text = report(project, f"BASE={base}", **job)
    at = "https://github.com/us/normlab/blob"
    assert (
        text.split("### Figures\n\n")[1].split("\n\n")[0]
        == f"""| before | now |
|---|---|
| **curves** | |
| ![curves]({at}/{base}/reports/figures/curves.png?raw=true) | \
![curves]({at}/{head}/reports/figures/curves.png?raw=true) |
| **drawn** | |
| — | not committed: `make repro` draws it |
| **new** | |
| — | ![new]({at}/{head}/reports/figures/new.png?raw=true) |"""
    )
    assert summary.read_text() == "What came before\n" + text
    (project / "reports/figures/curves.png").unlink()
    assert f"| `reports/figures/curves.png` at {base[:10]} | gone |" in report(
        project, f"BASE={base}"
    )


def test_a_long_table_is_cut(project: Path) -> None:
    many: dict[str, Any] = {f"metric{number:03}": number for number in range(80)}
    write(project, {"reports/metrics.json": json.dumps({"accuracy": {}, "other": many})})
    table = report(project).split("### Metrics\n\n")[1].split("\n\n### ")[0]
    assert table.count("\n| reports/metrics.json") == ci_report.MOST_ROWS
    rest = 82 - ci_report.MOST_ROWS  # the two accuracies are gone
    assert f"\n\nAnd {rest} more: `dvc metrics diff " in table
