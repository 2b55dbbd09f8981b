"""Where people work: other line ends, what desktops leave behind, what their session has set."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.copies import git, run, stages_run

pytestmark = pytest.mark.timeout(3600)


def test_a_clone_that_converts_line_ends_is_as_clean_as_any(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(project), str(clone))
    (clone / ".venv").symlink_to(project / ".venv")
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {project}/.dvc/cache\n")
    run(clone, "dvc", "checkout")
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

    def place(python: Path, said: str) -> None:
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\necho {said}\n")
        python.chmod(0o755)

    place(tmp_path / ".venv/bin/python", "above")
    place(tmp_path / "path/python", "activated")
    inner = tmp_path / "project"
    checkouts = [inner, *(inner / f"{of}.dvc/tmp/exps/one" for of in ("", "studies/"))]
    for folder in checkouts:
        (folder / "studies").mkdir(parents=True)
        (folder / "stages").mkdir()
        (folder / "studies/stages").symlink_to("../stages")
        (folder / "stages/python").write_text(script)
    monkeypatch.setenv("PATH", f"{tmp_path}/path{os.pathsep}{os.environ['PATH']}")

    def pythons() -> set[str]:
        command = ["sh", "stages/python"]
        folders = [folder / project for folder in checkouts for project in ("", "studies")]
        done = [subprocess.run(command, cwd=one, capture_output=True, text=True) for one in folders]
        return {one.stdout.strip() for one in done}

    assert pythons() == {"activated"}
    place(inner / ".venv/bin/python", "own")
    assert pythons() == {"own"}
