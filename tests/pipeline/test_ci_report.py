"""`make ci-report`: what a pull request changes, as a comment on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import verify

ROOT = verify.ROOT


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """A repository with a parameter and a metric, in which `make` finds all installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / lock).write_text("")
    (tmp_path / ".gitignore").write_text("/.venv\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    dry = subprocess.run(
        ["make", "-n", "install"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (mark,) = re.findall(r"touch (\.venv/\S+)", dry.stdout)
    (tmp_path / mark).touch()
    (tmp_path / "params.yaml").write_text("epochs: 18\n")
    (tmp_path / "metrics.json").write_text('{"gn": {"accuracy": 0.99}}')
    (tmp_path / "dvc.yaml").write_text("params: [params.yaml]\nmetrics: [metrics.json]\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (
        ["git", "init", "-q", "-b", "main"],
        [".venv/bin/dvc", "init", "--quiet"],
        ["git", "add", "."],
        ["git", *identity, "commit", "-qm", "Begin"],
    ):
        subprocess.run(words, cwd=tmp_path, check=True)
    return tmp_path


def ci_report(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = ["make", "--silent", "ci-report", *words]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_ci_report_says_that_nothing_has_changed(reported: Path) -> None:
    done = ci_report(reported)
    assert done.stdout == (
        "## Parameters, against main\n\nno change\n\n## Metrics, against main\n\nno change\n"
    )
    assert done.returncode == 0


def test_ci_report_has_a_table_where_something_has(reported: Path) -> None:
    (reported / "metrics.json").write_text('{"gn": {"accuracy": 0.98}}')
    done = ci_report(reported)
    assert done.returncode == 0
    params, metrics = done.stdout.split("\n## Metrics, against main\n\n")
    assert params == "## Parameters, against main\n\nno change\n"
    assert "| metrics.json | gn.accuracy | 0.99 | 0.98 |" in " ".join(metrics.split())
    (reported / "params.yaml").write_text("epochs: 6\n")
    done = ci_report(reported)
    assert "| params.yaml | epochs | 18 | 6 |" in " ".join(done.stdout.split())
    assert "no change" not in done.stdout


def test_ci_report_fails_where_there_is_nothing_to_compare_with(reported: Path) -> None:
    done = ci_report(reported, "BASE=nowhere")
    assert done.returncode != 0
    assert "no change" not in done.stdout
    assert "unknown Git revision 'nowhere'" in done.stderr
