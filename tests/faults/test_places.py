"""Where a stage runs and who owns what it writes: long paths, little memory, a group's rights."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Injected
from tests.faults.rehearsal import Stages, content

pytestmark = pytest.mark.timeout(600)


def train(project: Path, prepare: Callable[[], object], **variables: str) -> str:
    """Train as a user does, with workers of its own; return what was said."""
    done = subprocess.run(
        ["stages/python", "-m", "stages", "train", "gn"],
        cwd=project,
        env={name: v for name, v in os.environ.items() if not name.startswith("DASK_")} | variables,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_long_folder_for_temporary_files_will_do(
    rehearsed: Stages, tmp_path: Path, injected: Injected
) -> None:
    """As batch systems give: a socket's path has its limit at some hundred characters."""
    expected = content(rehearsed.project)
    folder = tmp_path / ("job-" + "x" * 100)
    folder.mkdir()
    with injected("long TMPDIR") as fault:
        train(rehearsed.project, lambda: None, TMPDIR=str(folder))
        assert content(rehearsed.project) == expected
        assert list(folder.iterdir()) == []
        fault.healed()


def test_little_memory_is_no_silent_hang(rehearsed: Stages, injected: Injected) -> None:
    """Dask takes a limit for what a process may keep in memory as the machine's memory."""
    expected = content(rehearsed.project)
    limit = (800 * 2**20,) * 2
    with injected("800 MB of memory") as fault:
        train(rehearsed.project, lambda: resource.setrlimit(resource.RLIMIT_RSS, limit))
        assert content(rehearsed.project) == expected
        fault.healed()


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_outputs_have_the_rights_that_the_umask_leaves(rehearsed: Stages, mask: int) -> None:
    """What was there before was made with another."""
    train(rehearsed.project, lambda: os.umask(mask))
    folder = rehearsed.project / "models/gn"
    written = [folder, *folder.rglob("*"), rehearsed.project / "reports/history/gn.csv"]
    modes = {path: path.stat().st_mode & 0o777 for path in written}
    assert modes == {path: (0o777 if path.is_dir() else 0o666) & ~mask for path in written}
