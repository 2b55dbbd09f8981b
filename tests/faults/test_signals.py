"""Stages that are told to end, or whose `dvc` is: a line, an exit code, and nobody left behind."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Injected, often
from tests.faults.rehearsal import prepare
from tests.pipeline.copies import git, heed, set_params

LINE = "ended by {}: a training goes on from here when it is run again"
# A signal may come while the garbage collector calls Dask back, and Python tells that what this
# raises gets no further. The stage ends all the same.
IN_COLLECTION = re.compile(
    r"(?s)Exception ignored in: <bound method \w+\._gc_callback.*?\nKeyboardInterrupt:? ?\n"
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose trainings take minutes."""
    project = tmp_path_factory.mktemp("long") / "project"
    prepare(project)
    set_params(project / "params.yaml", {"epochs": "500", "train_size": "500"})
    (project / ".venv").symlink_to(sys.prefix)
    git(project, "init", "-q")
    return project


def start(project: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command as a terminal does."""
    return subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed,
        # DVC's too; some of them, unlike Bash, start what they are to run and wait.
        env=os.environ | {"SHELL": "/bin/sh"},
    )


def processes(of: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    one = psutil.Process(of)
    return [one, *one.children(recursive=True)]


def train(project: Path, *command: str) -> subprocess.Popen[str]:
    """Start a training from its beginning."""
    shutil.rmtree(project / "checkpoints", ignore_errors=True)
    return start(project, *(command or ("stages/python", "-m", "stages", "train", "gn")))


def await_epochs(process: subprocess.Popen[str], project: Path) -> list[psutil.Process]:
    """Wait until epochs are kept; return all processes that run then."""
    while not any((project / "checkpoints/gn").rglob("seed*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    found = processes(process.pid)
    assert len(found) >= 4
    return found


def kept(project: Path) -> int:
    """How many checkpoints there are; nothing half written is beside anything."""
    assert not [path for path in project.rglob(".*.scratch-*") if "checkpoints" not in path.parts]
    return len(list((project / "checkpoints/gn").rglob("seed*")))


def test_ctrl_c_before_a_stage_runs_is_a_line(long: Path, injected: Injected) -> None:
    """While its shell, Python and the imports start."""
    moments = random.Random(0)  # noqa: S311
    for _ in range(often(3, 100)):
        process = start(long, "stages/python", "-m", "stages", "train", "gn")
        time.sleep(moments.choice([0.03, 0.3, 1.5]) * moments.random())
        with injected("Ctrl-C while a stage starts") as fault:
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=60)[1]
            # As a shell tells it.
            status = 128 - process.returncode if process.returncode < 0 else process.returncode
            assert status == 130, said
            lines = said.splitlines()
            assert [line for line in lines if " trials on " not in line] in (
                [LINE.format("SIGINT")],
                ["ended by SIGINT"],
                [],
            )
            fault.refused()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stage_that_is_terminated_ends_its_workers(
    long: Path, number: signal.Signals, injected: Injected
) -> None:
    process = train(long)
    running = await_epochs(process, long)
    with injected(f"{number.name} to a stage") as fault:
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number
        assert said.rstrip().endswith(LINE.format(number.name))
        assert "Traceback" not in IN_COLLECTION.sub("", said)
        assert not psutil.wait_procs(running, timeout=30)[1]
        assert kept(long)
        fault.refused()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_stage_outlives_its_dvc(long: Path, number: signal.Signals, injected: Injected) -> None:
    command = (".venv/bin/dvc", "repro", "--single-item", "train_gn")
    for _ in range(often(1, 5)):
        process = train(long, *command)
        running = await_epochs(process, long)
        with injected(f"{number.name} to dvc alone") as fault:
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            assert not psutil.wait_procs(running, timeout=30)[1]
            assert said.rstrip().endswith(LINE.format("SIGTERM"))
            assert "Traceback" not in IN_COLLECTION.sub("", said)
            assert kept(long)
            fault.refused()


def test_workers_do_not_outlive_a_killed_stage(long: Path, injected: Injected) -> None:
    process = train(long)
    running = await_epochs(process, long)
    with injected("kill -9 of a stage alone") as fault:
        process.kill()
        process.communicate(timeout=60)
        assert not psutil.wait_procs(running, timeout=30)[1]
        fault.refused()
