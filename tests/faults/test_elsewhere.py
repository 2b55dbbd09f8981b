"""A scheduler elsewhere that is absent or goes away, and workers there that come, go or cannot."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster

from normlab.errors import InputError
from normlab.training import cluster, crew, trial, trials
from normlab.training.chains import run_chains
from normlab.training.crew import Crew, Kind
from normlab.training.recipe import Data, State
from tests.clusters import OTHER_PROCESSOR, SCHEDULER, WORKER, started
from tests.conftest import make_recipe
from tests.faults.conftest import Injected

RECIPE = make_recipe()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def slowly() -> Callable[[int, int], int]:
    """A function that workers elsewhere need not be able to import."""

    def add(state: int, amount: int) -> int:
        time.sleep(0.3)
        return state + amount

    return add


add = slowly()


def here(address: str) -> Any:
    return dask.config.set({"scheduler-address": address})


@pytest.mark.parametrize("silent", [False, True])
def test_a_scheduler_that_does_not_answer_is_a_line(injected: Injected, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not silent:
            server.close()
        since = time.monotonic()
        with injected("scheduler that does not answer") as fault:
            refused = f"^scheduler: got tcp://127.0.0.1:{port}, which does not answer"
            with (
                here(f"tcp://127.0.0.1:{port}"),
                pytest.raises(InputError, match=refused) as caught,
                cluster.connect(1),
            ):
                pass
            assert "\n" not in str(caught.value)
            assert time.monotonic() - since < 15
            fault.refused()


def test_a_worker_that_cannot_compute_is_named_and_left_out(
    stack: ExitStack,
    tmp_path: Path,
    noise: Data,
    injected: Injected,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, scheduler = stack.enter_context(started(SCHEDULER, folder=tmp_path))
    cannot = started(OTHER_PROCESSOR + WORKER, scheduler, folder=tmp_path)
    _, unfit = stack.enter_context(cannot)
    expected = trial.train_epoch(RECIPE, trial.start(RECIPE, 0), noise)
    step = partial(trial.train_epoch, RECIPE)
    describe = partial(trials.kind_of, [RECIPE], 100, 1)
    refused = "engine: got a riscv64 processor, allowed: "
    with here(scheduler), injected("worker that cannot compute") as alone:
        with (
            cluster.connect(1) as client,
            pytest.raises(InputError, match=f"^{unfit}: {refused}"),
        ):
            Crew(client, describe).muster()
        alone.refused()
    _, fit = stack.enter_context(started(WORKER, scheduler, folder=tmp_path))
    with (
        here(scheduler),
        cluster.connect(1) as client,
        injected("worker that cannot compute beside one that can") as fault,
    ):
        workers = Crew(client, describe)
        planned = [(step, trial.start(RECIPE, 0), 1) for _ in range(4)]
        states: list[State] = [s for _, s in run_chains(client, planned, noise, workers)]
        assert [state.row for state in states] == [expected.row] * 4
        assert workers.fit.keys() == {fit}
        assert f"{unfit}: left out: {refused}" in capsys.readouterr().err
        fault.healed()

        def differ() -> Kind:
            return Kind((f"process {os.getpid()}",))

        crew_of_one = Crew(client, differ)
        crew_of_one.muster()
        assert len(crew_of_one.fit) == len(crew_of_one.unfit) == 1
        (left_out,) = crew_of_one.unfit.values()
        assert "allowed: that of the others, process " in str(left_out)


def test_an_only_worker_may_leave_and_another_come(
    stack: ExitStack,
    tmp_path: Path,
    injected: Injected,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running, scheduler = stack.enter_context(started(SCHEDULER, folder=tmp_path))
    first, _ = stack.enter_context(started(WORKER, scheduler, folder=tmp_path))
    another = stack.enter_context(ExitStack())

    def replace() -> None:
        first.kill()
        time.sleep(4)
        another.enter_context(started(WORKER, scheduler, folder=tmp_path))

    with here(scheduler), cluster.connect(1) as client:
        with injected("only worker killed") as fault:
            results = run_chains(client, [(add, 0, 5), (add, 100, 5)], 1)
            got = [next(results)]
            thread = threading.Thread(target=replace)
            thread.start()
            got += results
            thread.join()
            expected = [(which, 100 * which + n) for which in (0, 1) for n in range(1, 6)]
            assert sorted(got) == expected
            assert f"waiting for workers of {scheduler}\n" in capsys.readouterr().err
            fault.healed()
        with injected("scheduler killed") as fault:
            results = run_chains(client, [(add, 0, 50)], 1)
            next(results)
            running.kill()
            since = time.monotonic()
            with pytest.raises(InputError, match=f"^scheduler: {scheduler} has gone; ") as caught:
                list(results)
            assert "\n" not in str(caught.value)
            assert time.monotonic() - since < 15
            fault.refused()


def test_a_cluster_that_starts_workers_for_tasks_starts_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "say", lambda line: print(line, flush=True))
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as own:
        own.adapt(minimum=0, maximum=2)
        with here(own.scheduler_address), cluster.connect(2) as client:
            states = sorted(run_chains(client, [(add, 0, 2), (add, 10, 2)], 1))
            assert states == [(0, 1), (0, 2), (1, 11), (1, 12)]
    assert "waiting for workers of tcp://127.0.0.1:" in capsys.readouterr().out
