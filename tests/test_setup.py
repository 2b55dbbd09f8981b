"""Set-up as `make install` does it, short of downloading."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = "requirements.lock"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    for name in ("Makefile", LOCK, "requirements-dev.lock", "tools/supported.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *words]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_a_lock_is_known_by_its_content_and_not_by_its_time(project: Path) -> None:
    first = make(project, "--dry-run", "install").stdout
    assert "venv --clear" in first
    (mark,) = set(re.findall(r"touch (\.venv/\S+)", first))
    (project / ".venv").mkdir()
    (project / mark).touch()
    (project / LOCK).touch()
    assert "venv" not in make(project, "--dry-run", "install").stdout
    with (project / LOCK).open("a") as stream:
        stream.write("# another package\n")
    assert "venv --clear" in make(project, "--dry-run", "install").stdout


@pytest.mark.parametrize(
    ("system", "machine"), [("Windows", "AMD64"), ("Darwin", "x86_64"), ("Linux", "riscv64")]
)
def test_a_system_without_packages_gets_one_line(project: Path, system: str, machine: str) -> None:
    python = project / "python"
    pretend = f'platform.system = lambda: "{system}"; platform.machine = lambda: "{machine}"'
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import platform, runpy, sys; {pretend}; "
        'runpy.run_path(sys.argv[1])\' "$@"\n'
    )
    python.chmod(0o755)
    done = make(project, f"PYTHON={python}", "install")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"error: there are no packages for {system} {machine}, "
        "allowed: Linux x86_64, Linux aarch64 or Darwin arm64 (macOS)"
    )
    assert not (project / ".venv").exists()
