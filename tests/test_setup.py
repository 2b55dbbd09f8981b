"""Set-up as `make install` does it, short of downloading."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = "requirements.lock"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    locks = [path.name for path in ROOT.glob("requirements*.lock")]
    for name in ("Makefile", *locks, "tools/supported.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def pretender(folder: Path, lies: str) -> Path:
    """A Python that says of itself what it is told to say."""
    python = folder / "python3"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import platform, sys; {lies}; "
        'exec(open(sys.argv[1]).read() if len(sys.argv) == 2 else sys.argv[2])\' "$@"\n'
    )
    python.chmod(0o755)
    return python


def make(project: Path, *words: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `make`, with a folder before all others on the PATH if one is given."""
    path = [str(first)] * bool(first) + [os.environ["PATH"]]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *words],
        cwd=project,
        env=ours | {"PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_lock_is_known_by_its_content_and_not_by_its_time(project: Path) -> None:
    first = make(project, "--dry-run", "install").stdout
    assert "venv --clear" in first
    assert ".venv/bin/python -m tools.plots_template" in first
    (mark,) = set(re.findall(r"touch (\.venv/\S+)", first))
    (project / ".venv").mkdir()
    (project / mark).touch()
    (project / LOCK).touch()
    assert "venv" not in make(project, "--dry-run", "install").stdout
    with (project / LOCK).open("a") as stream:
        stream.write("# another package\n")
    assert "venv --clear" in make(project, "--dry-run", "install").stdout


def test_an_environment_is_known_by_the_python_that_made_it(project: Path) -> None:
    (project / "other").mkdir()
    other = pretender(project / "other", "sys.version_info = (3, 13)")
    assert make(project, "--touch", "install").returncode != 0  # no .venv to put the mark in
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    assert make(project, "--touch", "install").returncode == 0
    # What is first on the PATH is not asked: the environment's own Python is there.
    assert "venv" not in make(project, "--dry-run", "install", first=other.parent).stdout
    named = make(project, "--dry-run", "install", f"PYTHON={other}").stdout
    assert f"{other} -m venv --clear .venv" in named
    assert "touch .venv/installed-3.13-" in named
    # A Python that is gone, as after an upgrade of the system, is another one too.
    (project / ".venv/bin/python").unlink()
    (project / ".venv/bin/python").symlink_to(project / "gone")
    gone = make(project, "--dry-run", "install", first=other.parent).stdout
    assert "python3 -m venv --clear .venv" in gone


def test_extras_are_installed_beside_what_is_there(project: Path) -> None:
    """Without their dependencies, which the lock they build on has: no version of it changes."""
    for extra in ("s3", "ssh"):
        shutil.copy(ROOT / f"requirements-{extra}.lock", project)
    (project / ".venv").mkdir()
    assert make(project, "--touch", "install").returncode == 0
    planned = make(project, "--dry-run", "install", "EXTRAS=s3 ssh").stdout.replace("\\\n", "")
    installed = re.findall(r"uv pip install .* --no-deps --require-hashes\s+-r (\S+)", planned)
    assert installed == ["requirements-s3.lock", "requirements-ssh.lock"]
    assert "-r requirements-s3.lock" in make(project, "-n", "install", "REMOTE=s3://b/n").stdout
    refused = make(project, "install", "EXTRAS=ftp")
    assert (refused.returncode, "EXTRAS: got ftp, allowed: s3 ssh" in refused.stderr) == (2, True)


GLIBC = 'platform.libc_ver = lambda: ("glibc", "2.36")'
MUSL = 'platform.libc_ver = lambda: ("", "")'
SMALL = f"{GLIBC}; sys.maxsize = 2**31 - 1"


@pytest.mark.parametrize(
    ("system", "machine", "more", "got"),
    [
        ("Windows", "AMD64", MUSL, "Windows AMD64"),
        ("Darwin", "x86_64", MUSL, "Darwin x86_64"),
        ("Linux", "riscv64", GLIBC, "Linux riscv64"),
        ("Linux", "x86_64", MUSL, "Linux x86_64 without glibc"),
        ("Linux", "aarch64", SMALL, "Linux aarch64 with a Python of 32 bits"),
    ],
)
def test_a_system_without_packages_gets_one_line(
    project: Path, system: str, machine: str, more: str, got: str
) -> None:
    lies = f'platform.system = lambda: "{system}"; platform.machine = lambda: "{machine}"; {more}'
    pretender(project, lies)
    done = make(project, "install", first=project)
    assert done.returncode != 0
    line, *after = done.stderr.splitlines()
    assert line == (
        f"error: there are no packages for {got}, allowed: "
        "Linux x86_64, Linux aarch64 or Darwin arm64 (macOS)"
    )
    assert all(text.startswith("make: ***") for text in after)
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("version", "kind", "got"),
    [
        ("3.10.9", "CPython", "3.10"),
        ("3.15.0", "CPython", "3.15"),
        ("3.11.2", "PyPy", "PyPy 3.11"),
    ],
)
def test_a_python_without_packages_gets_one_line(
    project: Path, version: str, kind: str, got: str
) -> None:
    parts = str(tuple(version.split("."))).replace("'", '"')
    lies = f"platform.python_version_tuple = lambda: {parts}"
    pretender(project, f'{lies}; platform.python_implementation = lambda: "{kind}"')
    done = make(project, "install", first=project)
    assert done.returncode != 0
    assert re.fullmatch(
        rf"error: \S+ is Python {got}, allowed: 3\.11 to 3\.14 \(make PYTHON=\.\.\.\)",
        done.stderr.splitlines()[0],
    )
    assert not (project / ".venv").exists()


def test_an_old_python_can_read_what_refuses_it() -> None:
    """Of what Python 2.7 and 3 both read, Python 3 is here: nothing newer is used."""
    tree = ast.parse((ROOT / "tools/supported.py").read_text())
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.FunctionDef, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []


def test_the_systems_are_those_that_the_locks_are_resolved_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    resolved = [
        " ".join(re.findall(r"== '(\w+)'", marker)).capitalize()
        for marker in project["tool"]["uv"]["environments"]
    ]
    (systems,) = re.findall(r"(?m)^SYSTEMS = (.*)$", (ROOT / "tools/supported.py").read_text())
    assert resolved == ast.literal_eval(systems)
