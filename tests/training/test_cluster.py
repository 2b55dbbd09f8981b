import os
import signal
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.system import CPU_COUNT

from normlab.errors import InputError
from normlab.training import cluster, trial
from normlab.training.chains import run_chains
from normlab.training.recipe import Data, State
from tests.conftest import make_recipe


def add(state: int, amount: int) -> int:
    return state + amount


def subtract(state: int, amount: int) -> int:
    return state - amount


def refuse(state: int, _: Any) -> int:
    if state == 1:
        raise InputError("seed 1 will not do")
    return state


def test_chains_are_stepped_to_their_ends_one_worker_per_core_and_none_stays() -> None:
    with cluster.connect(chains=3) as client:
        workers = client.scheduler_info()["workers"]
        assert {worker["nthreads"] for worker in workers.values()} == {1}
        assert len(workers) == min(3, CPU_COUNT)
        assert set(client.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}
        pids = list(client.run(os.getpid).values())
        for pid in pids:
            started_with = Path(f"/proc/{pid}/environ").read_text().split("\0")
            assert {f"{name}={value}" for name, value in cluster.ALLOCATION.items()} <= {
                *started_with
            }
        chains = [(add, 0, 3), (subtract, 10, 2), (add, 20, 0)]
        states = sorted(run_chains(client, chains, 1))
        assert states == [(0, 1), (0, 2), (0, 3), (1, 8), (1, 9)]
        with pytest.raises(InputError, match="seed 1 will not do"):
            list(run_chains(client, [(refuse, 0, 1), (refuse, 1, 1)], None))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_configured_scheduler_runs_our_code(scheduler: str, noise: Data) -> None:
    recipe = make_recipe()
    start = trial.start(recipe, 0)
    expected = trial.train_epoch(recipe, start, noise)
    with dask.config.set({"scheduler-address": scheduler}), cluster.connect(chains=1) as client:
        assert client.scheduler_info()["address"] == scheduler

        def step(state: State, data: Data) -> State:
            return trial.train_epoch(recipe, state, data)

        def complain(name: str, _: None) -> None:
            raise InputError(f"device: got {name}")

        ((_, got),) = run_chains(client, [(step, start, 1)], noise)
        with pytest.raises(InputError, match="device: got cold"):
            list(run_chains(client, [(complain, "cold", 1)], None))
    assert got.row == expected.row
