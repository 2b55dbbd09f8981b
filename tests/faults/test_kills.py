"""Stages that are killed while they write, or at any moment: run again, they end as ever."""

import itertools
import os
import random
import signal
import subprocess
import time

import pytest

from tests.faults.conftest import MANY, Injected, often
from tests.faults.rehearsal import STAGES, Stages, age, content, whole


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("command", STAGES)
def test_a_kill_at_any_write_is_healed(rehearsed: Stages, command: str, injected: Injected) -> None:
    """At each write in a torture, else at one in the middle."""
    project = rehearsed.project
    expected = content(project)
    for at in itertools.count(1) if MANY else [rehearsed.writes[command] // 2]:
        age(project, command, expected)
        killed = rehearsed.run(command, at)
        if killed.status == 0 and MANY:
            break
        with injected("kill at a write") as fault:
            assert killed.status == -signal.SIGKILL
            assert whole(command, expected, content(project)), at
            again = rehearsed.run(command)
            assert again.status == 0, again.said
            assert content(project) == expected, at
            fault.healed()
    assert content(project) == expected


@pytest.mark.timeout(7200)
def test_a_kill_at_any_moment_is_healed(rehearsed: Stages, injected: Injected) -> None:
    """Of a training as a user starts it, with its workers: all its processes at once."""
    project = rehearsed.project
    expected = content(project)
    moments = random.Random(0)  # noqa: S311
    command = ["stages/python", "-m", "stages", "train", "gn"]

    def train(seconds: float | None) -> int:
        process = subprocess.Popen(
            command, cwd=project, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    began = time.monotonic()
    assert train(None) == 0
    took = time.monotonic() - began
    for _ in range(often(1, 50)):
        age(project, "train gn", expected)
        train(took * moments.random())
        with injected("kill at any moment") as fault:
            assert train(None) == 0
            assert content(project) == expected
            fault.healed()
