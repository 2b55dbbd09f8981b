"""Where people work: other line ends, what desktops leave behind, what their session has set."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.test_pipeline import git, run, run_from_nothing, stages_run

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, run once from nothing and committed."""
    folder = tmp_path_factory.mktemp("workplace")
    run_from_nothing(folder)
    return folder


def test_a_clone_that_converts_line_ends_is_as_clean_as_any(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(project), str(clone))
    (clone / ".venv").symlink_to(project / ".venv")
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {project}/.dvc/cache\n")
    run(clone, "dvc", "checkout", "dvc.yaml")
    assert run(clone, "dvc", "status", "dvc.yaml").stdout.endswith("up to date.\n")
    ran = run(clone, "dvc", "repro", "--force", "--single-item", "plot")
    assert stages_run(ran) == ["plot"]
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", [".DS_Store", "._x", "Thumbs.db", "desktop.ini", "a~", ".a.swp"])
def test_what_desktops_and_editors_leave_behind_reruns_nothing(project: Path, name: str) -> None:
    left = [project / folder / name for folder in ("data/train", "models/gn", "reports/figures")]
    for file in left:
        file.write_text("left behind")
    try:
        assert run(project, "dvc", "status", "dvc.yaml").stdout.endswith("up to date.\n")
    finally:
        for file in left:
            file.unlink()


def test_what_a_session_has_set_for_other_programs_has_no_say(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')\n")
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7\nno.such.key: 1\n")
    for name, value in {
        "LC_ALL": "C",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONOPTIMIZE": "2",
        "PYTHONWARNINGS": "error",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(name, value)
    ours = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "none")}
    command = ["stages/python", "-m", "stages", "plot"]
    before = git(project, "status", "--porcelain")
    done = subprocess.run(
        command, cwd=project, env=os.environ | ours, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert git(project, "status", "--porcelain") == before == ""


def test_an_environment_in_a_folder_above_is_not_the_projects(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's own comes first, for experiments too; then what the user has activated."""
    script = (project / "stages/python").read_text()
    for folder, said in ((".venv", "above"), ("path", "activated")):
        python = tmp_path / folder / ("bin/python" if folder == ".venv" else "python")
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho {said}\n")
        python.chmod(0o755)
    inner = tmp_path / "project"
    experiment = inner / ".dvc/tmp/exps/one"
    experiment.mkdir(parents=True)
    (tmp_path / "run").write_text(script)
    monkeypatch.setenv("PATH", f"{tmp_path}/path{os.pathsep}{os.environ['PATH']}")

    def python_of(folder: Path) -> str:
        command = ["sh", str(tmp_path / "run")]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip()

    assert python_of(inner) == python_of(experiment) == "activated"
    own = inner / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\necho own\n")
    own.chmod(0o755)
    assert python_of(inner) == python_of(experiment) == "own"
