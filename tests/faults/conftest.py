"""Faults that are injected: how many, and the table of what came of them.

A few of each kind by default; with `TORTURE=1` in the environment, as `make torture` has it, many.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults import rehearsal
from tests.faults.rehearsal import Stages
from tests.pipeline.copies import copy_of, made_once, shared

MANY = bool(os.environ.get("TORTURE"))
OUTCOMES = ("healed", "refused with one line", "wrong")

in_torture = pytest.mark.skipif(not MANY, reason="takes long, and is for `make torture`")


def often(few: int, many: int) -> int:
    """How often to inject a fault: `many` times in a torture, else a `few`."""
    return many if MANY else few


class Fault:
    """A fault that has been injected; wrong until it is known to be otherwise."""

    outcome = "wrong"

    def healed(self) -> None:
        """All came out as it does without the fault."""
        self.outcome = "healed"

    def refused(self) -> None:
        """One line told of it, the exit status was not zero, and what was there is there."""
        self.outcome = "refused with one line"


Injected = Callable[[str], AbstractContextManager[Fault]]


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Injected:
    """Count a fault of a kind: `with injected("full disk") as fault: ...; fault.healed()`."""

    @contextmanager
    def count(kind: str) -> Iterator[Fault]:
        fault = Fault()
        try:
            yield fault
        finally:
            request.node.user_properties.append(("fault", [kind, fault.outcome]))
        assert fault.outcome != "wrong", kind

    return count


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Iterator[Stages]:
    """All stages, each run once in a small project; their trials go to a scheduler elsewhere.

    They are run once for all processes that test: each has a copy of that project.
    """
    if sys.platform != "linux":
        pytest.skip("what injects faults into system calls is for Linux")
    folder = tmp_path_factory.mktemp("rehearsed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
        made = made_once(shared(tmp_path_factory) / "rehearsal", rehearsal.rehearse)
        copy_of(made, folder)
        stages = Stages(folder)
    yield stages
    stages.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table: a row for each kind of fault."""
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    counted = Counter(
        (value[0], value[1])
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "fault"
    )
    if not counted:
        return
    terminalreporter.section("faults")
    kinds = sorted({kind for kind, _ in counted})
    width = max(map(len, [*kinds, "all"]))
    terminalreporter.write_line("  ".join([" " * width, "injected", *OUTCOMES]))
    rows = {kind: [counted[kind, outcome] for outcome in OUTCOMES] for kind in kinds}
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for kind, numbers in rows.items():
        cells = [f"{sum(numbers):8}"]
        cells += [f"{n:{len(o)}}" for n, o in zip(numbers, OUTCOMES, strict=True)]
        terminalreporter.write_line("  ".join([f"{kind:{width}}", *cells]))
