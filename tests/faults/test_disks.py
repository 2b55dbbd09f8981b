"""Disks that are full, broken or not to be written to: a line says so, and nothing is lost."""

import errno
import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from normlab import studies
from normlab.evidence import rates, recipes
from tests.faults.conftest import MANY, Injected, often
from tests.faults.rehearsal import (
    OLD,
    STAGES,
    Stages,
    age,
    content,
    leave_out_trends,
    outputs,
    spread,
    whole,
)
from tests.pipeline.copies import ROOT

READ_ONLY = (errno.EROFS, errno.EACCES)
NUMBERS = [errno.ENOSPC, *READ_ONLY, errno.EIO]
EVERY = list(itertools.product(STAGES, NUMBERS))
BYTECODE = "PYTHONDONTWRITEBYTECODE"
ONE_EACH = list(zip(STAGES, itertools.cycle(NUMBERS), strict=False))


def told(said: str, reason: str) -> bool:
    lines = [line for line in said.splitlines() if " trials on " not in line]
    return len(lines) == 1 and bool(re.match(rf"error: \S+: .*{re.escape(reason)}$", lines[0]))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("command", "number"), EVERY if MANY else ONE_EACH)
def test_a_write_that_fails_is_told_and_nothing_is_lost(
    rehearsed: Stages, command: str, number: int, injected: Injected
) -> None:
    project, reason = rehearsed.project, os.strerror(number)
    expected = content(project)
    # What is read only is so from the start.
    last = 1 if number in READ_ONLY else rehearsed.writes[command]
    for at in spread(last, often(1, 10)):
        age(project, command, expected)
        with injected(f"disk: {reason.lower()}") as fault:
            failed = rehearsed.run(command, at, number)
            found = content(project)
            if failed.status == 0:
                # What came too late for the outputs: what they replaced is cleared away next time.
                assert all(found[name] == expected[name] for name in outputs(command, expected)), at
                fault.healed()
            else:
                assert (failed.status, told(failed.said, reason)) == (1, True), failed
                assert whole(command, expected, found), at
                fault.refused()
        again = rehearsed.run(command)
        assert again.status == 0, again.said
        assert content(project) == expected, at


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A file system of its own, in memory, with 4 KB left."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "disk", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def judge(
    folder: Path, before: Callable[[], None] | None = None, **environment: str
) -> tuple[int, str]:
    done = subprocess.run(
        ["stages/python", "-m", "stages", "judge"],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != BYTECODE} | environment,
        preexec_fn=before,
        stderr=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stderr


def fill(folder: Path) -> Path:
    """Put `judge` and what it reads below a folder, and older findings; return where it runs."""
    own = folder / "studies"
    for name in ("normlab", "stages"):
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, own / name, ignore=compiled)
    (own / "requirements.lock").symlink_to(ROOT / "requirements.lock")
    (own / ".venv").symlink_to(sys.prefix)
    read = ("reports/parameters.csv", "studies/claims.yaml", "studies/params.yaml", "params.yaml")
    for name in read:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    leave_out_trends(own / "claims.yaml")
    (own / "reports").mkdir()
    for name in studies.load(own / "params.yaml"):
        if name.startswith((rates.SEARCH, recipes.STUDY)):
            continue
        table = f"reports/{name}.csv"
        (own / table).write_bytes((ROOT / "studies" / table).read_bytes())
    (own / "reports/findings.csv").write_bytes(OLD)
    return own


def test_a_file_that_may_not_be_as_large_is_told(tmp_path: Path, injected: Injected) -> None:
    own = fill(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    with injected("disk: file too large") as fault:
        status, said = judge(own, limit, **{BYTECODE: "1"})
        assert (status, told(said, "File too large")) == (1, True), said
        assert (own / "reports/findings.csv").read_bytes() == OLD
        assert not list(own.rglob(".*.scratch-*"))
        fault.refused()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="root mounts, on Linux")
def test_a_full_disk_is_told(tmp_path: Path, injected: Injected) -> None:
    with full(tmp_path), injected("disk: full, a real one") as fault:
        own = fill(tmp_path)
        left = os.statvfs(tmp_path)
        (tmp_path / "filler").write_bytes(bytes((left.f_bavail - 1) * left.f_bsize))
        status, said = judge(own)
        assert (status, told(said, "No space left on device")) == (1, True), said
        assert (own / "reports/findings.csv").read_bytes() == OLD
        assert not list(own.rglob(".*.scratch-*"))
        (tmp_path / "filler").unlink()
        assert judge(own)[0] == 0
        fault.refused()
