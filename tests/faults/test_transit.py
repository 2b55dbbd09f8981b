"""Damage on the way to DVC's remote and back: what is wrong there is never used.

The project is a small one, of one stage that notes when it runs; what shares it is `make push` and
`make pull`, short of make.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from dvc import cli

import tools.dvc
import tools.share
from tests.faults.conftest import Injected, in_torture, often
from tests.pipeline.copies import ROOT, git

STAGE = """
stages:
  train:
    cmd: echo run >> .dvc/tmp/ran && mkdir models && cp value models/a && cat value value > models/b
      && cp value table.csv
    deps: [value]
    outs: [models]
    plots: [table.csv: {cache: false}]
"""
VALUES = ("tried", "present")
pytestmark = pytest.mark.timeout(3600)


def share(folder: Path, direction: str) -> subprocess.Popen[str]:
    """Begin to push or pull."""
    return subprocess.Popen(
        [sys.executable, "-m", "tools.share", direction],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_dvc(*words: str, folder: Path = Path()) -> int:
    """Run DVC in this process: a fraction of the time."""
    with chdir(folder):
        status: int = cli.main([*words, "--quiet"])
    return status


def dvc(folder: Path, *words: str) -> None:
    assert run_dvc(*words, folder=folder) == 0


def push(folder: Path) -> None:
    with chdir(folder):
        assert tools.share.push(Path())


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.dvc, "run", run_dvc)


def repro(folder: Path, value: str) -> bool:
    """Run the stage with a value; whether it ran, and was not taken from elsewhere."""
    (folder / "value").write_text(value)
    ran = folder / ".dvc/tmp/ran"
    ran.unlink(missing_ok=True)
    dvc(folder, "repro")
    return ran.exists()


def is_right(folder: Path, value: str) -> bool:
    found = {file.name: file.read_text() for file in (folder / "models").iterdir()}
    return (found, (folder / "table.csv").read_text()) == ({"a": value, "b": value * 2}, value)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project in `first`, run with each of the values; nothing in the store."""
    folder = tmp_path_factory.mktemp("transit")
    first = folder / "first"
    (first / "studies").mkdir(parents=True)
    git(first, "init", "--quiet")
    dvc(first, "init")
    dvc(first / "studies", "init", "--subdir")
    dvc(first, "config", "core.analytics", "false")
    dvc(first, "remote", "add", "--default", "store", str(folder / "store"))
    dvc(first, "remote", "modify", "store", "verify", "true")
    (first / "dvc.yaml").write_text(STAGE)
    assert all(repro(first, value) for value in VALUES)
    git(first, "add", ".")
    git(first, "commit", "--quiet", "--message", "Run")
    return folder


@pytest.fixture
def place(begun: Path) -> Path:
    """That folder, with an empty store and no other clones."""
    for name in ("store", "gone", "second", "third"):
        shutil.rmtree(begun / name, ignore_errors=True)
    return begun


@pytest.fixture
def pushed(place: Path) -> Path:
    """That folder, with all in the store."""
    push(place / "first")
    return place


def take(place: Path, meanwhile: Callable[[Path], object] | None = None) -> tuple[bool, list[bool]]:
    """Pull into a new clone and ask for each value there: whether all came, and what had to run.

    Whatever the pull has brought, what the clone then has must be right.
    """
    second = place / "second"
    shutil.rmtree(second, ignore_errors=True)
    git(place, "clone", "--quiet", "first", "second")
    if meanwhile:
        process = share(second, "pull")
        meanwhile(second)
        said, _ = process.communicate()
        assert "Traceback" not in said, said
        all_came = process.returncode == 0
    else:
        with chdir(second):
            all_came = tools.share.pull(Path())
    ran = []
    for value in reversed(VALUES):
        ran.append(repro(second, value))
        assert is_right(second, value)
    return all_came, ran


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_altered_is_not_used(pushed: Path, injected: Injected) -> None:
    chance = random.Random(0)  # noqa: S311
    store = pushed / "store"
    kinds = {
        "record": files(store / "runs"),
        "list": [file for file in files(store) if file.suffix == ".dir"],
        "file": [file for file in files(store / "files") if not file.suffix],
    }
    for kind in often(1, 30) * list(kinds):
        file = chance.choice(kinds[kind])
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(7)
        file.chmod(0o644)
        with injected(f"a {kind} altered on the remote") as fault:
            file.write_bytes(damaged)
            _, ran = take(pushed)
            # The present run needs no record, and sizes are no part of one.
            assert any(ran) or kind == "record"
            fault.healed()
        file.write_bytes(content)
    assert take(pushed) == (True, [False, False])


def until(folder: Path, count: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a folder has so many files, or the process has ended."""
    while len(files(folder)) < count and (process is None or process.poll() is None):
        time.sleep(0.001)


def test_a_push_that_was_killed_leaves_nothing_wrong(place: Path, injected: Injected) -> None:
    store = place / "store"
    for count in range(1, 1 + often(2, 8)):
        shutil.rmtree(store, ignore_errors=True)
        with injected("a push killed") as fault:
            process = share(place / "first", "push")
            until(store, count * 2, process)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            take(place)
            fault.healed()
        with injected("a push killed, and repeated") as fault:
            push(place / "first")
            assert take(place) == (True, [False, False])
            fault.healed()


def test_a_file_that_a_killed_push_has_begun_is_sent_anew(pushed: Path, injected: Injected) -> None:
    """DVC makes an empty one of its name first, to share blocks of the disk; lists come last."""
    sent = files(pushed / "store/files")
    for file in sent:
        with injected("a file begun on the remote") as fault:
            for other in sent:
                if other.suffix == ".dir" and other != file:
                    other.unlink()
            file.chmod(0o644)
            file.write_bytes(b"")
            push(pushed / "first")
            assert take(pushed) == (True, [False, False])
            fault.healed()


@in_torture
def test_a_remote_that_goes_away_is_said(pushed: Path, injected: Injected) -> None:
    store, gone = pushed / "store", pushed / "gone"

    for count in range(1, 1 + often(2, 8)):

        def leave(second: Path, count: int = count) -> None:
            until(second / ".dvc/cache", count)
            store.rename(gone)

        with injected("a remote gone in the middle of a pull") as fault:
            all_came, ran = take(pushed, leave)
            assert not (all_came and any(ran))
            fault.healed()
        gone.rename(store)


def test_two_pushes_at_once_do_no_harm(place: Path, injected: Injected) -> None:
    git(place, "clone", "--quiet", "first", "third")
    assert repro(place / "third", "third")
    with injected("two pushes at once") as fault:
        both = [share(place / name, "push") for name in ("first", "third")]
        said = [process.communicate()[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert take(place) == (True, [False, False])
        assert not repro(place / "second", "third")
        assert is_right(place / "second", "third")
        fault.healed()
