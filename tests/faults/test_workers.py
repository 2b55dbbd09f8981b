"""Workers of our own that are killed or stopped: trials go on from where they were."""

import multiprocessing.forkserver
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from normlab.arms import Arm
from normlab.errors import InputError
from normlab.evidence import evaluation
from normlab.evidence.evaluation import LabelledImages, TrainedModel
from normlab.training import chains, cluster, crew, trial, trials
from normlab.training.recipe import Data, Images, Recipe, State
from tests.conftest import NORM_PARAMS, PART, make_recipe
from tests.faults.conftest import Injected, in_torture, often

EPOCHS = 4
SEEDS = (0, 1, 2)
Rows = list[dict[str, Any]]


def slow_epoch(recipe: Recipe, state: State, data: Data) -> State:
    """An epoch that lasts long enough to be in the middle of."""
    time.sleep(0.3)
    return trial.train_epoch(recipe, state, data)


def pids(client: Client) -> list[int]:
    return [nanny.pid for nanny in client.cluster.workers.values() if nanny.pid]


def kill(client: Client, which: slice, by: int = signal.SIGKILL) -> None:
    for pid in pids(client)[which]:
        os.kill(pid, by)


def kill_twice(client: Client) -> None:
    """Kill all workers, and one of those that are started instead before it has started."""
    nanny = next(iter(client.cluster.workers.values()))
    before = nanny.pid
    kill(client, slice(None))
    while nanny.pid in (None, before):
        time.sleep(0.001)
    os.kill(nanny.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(noise: Data) -> list[Rows]:
    rows = []
    for seed in SEEDS:
        recipe = make_recipe(epochs=EPOCHS)
        state, ended = trial.start(recipe, seed), []
        for _ in range(EPOCHS):
            state = trial.train_epoch(recipe, state, noise)
            ended.append(state.row)
        rows.append(ended)
    return rows


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    cluster.start_forkserver("normlab.training.trials")
    with cluster.connect(chains=2) as client:
        yield client


def rows_of(client: Client, noise: Data, at_result: Mapping[int, Callable[[], None]]) -> list[Rows]:
    """Train, and do something to the workers when so many results have come."""
    step = partial(slow_epoch, make_recipe(epochs=EPOCHS))
    planned = [(step, trial.start(step.args[0], seed), EPOCHS) for seed in SEEDS]
    rows: list[Rows] = [[] for _ in SEEDS]
    results = chains.run_chains(client, planned, noise)
    for count, (which, state) in enumerate(results):
        rows[which].append(state.row)
        at_result.get(count, lambda: None)()
    return rows


@pytest.mark.parametrize("round_", range(often(1, 10)))
def test_lost_workers_change_nothing(
    client: Client, noise: Data, undisturbed: list[Rows], injected: Injected, round_: int
) -> None:
    first = round_ % 3
    moments = {
        first: partial(kill, client, slice(0, 1)),
        first + 5: partial(kill_twice, client),
    }
    with injected("worker killed") as one, injected("all workers killed") as other:
        assert rows_of(client, noise, moments) == undisturbed
        one.healed()
        other.healed()


def test_a_stopped_worker_is_named_and_its_trial_given_to_another(
    client: Client,
    noise: Data,
    undisturbed: list[Rows],
    injected: Injected,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(crew, "SILENCE", 3.0)
    stopped = pids(client)[0]
    stop = partial(kill, client, slice(0, 1), signal.SIGSTOP)
    with injected("worker stopped") as fault:
        assert rows_of(client, noise, {1: stop}) == undisturbed
        lines = capsys.readouterr().err.splitlines()
        assert any(re.search(r": has not answered for \d+ seconds$", line) for line in lines), lines
        assert any(line.startswith("chain ") and "to another worker" in line for line in lines)
        fault.healed()
    os.kill(stopped, signal.SIGKILL)


def kill_own(state: int, _: Any) -> int:
    time.sleep(0.2)
    if state == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return state + 2


def test_a_trial_that_loses_three_workers_is_named(client: Client, injected: Injected) -> None:
    planned = [(kill_own, start, 20) for start in (0, 1)]
    with injected("trial that kills its worker") as fault:
        refused = (
            r"gn seed 1: lost with its worker 3 times in a row, .*tls://127.*too little memory"
        )
        with pytest.raises(InputError, match=refused):
            list(chains.run_chains(client, planned, None, names=["gn seed 0", "gn seed 1"]))
        fault.refused()


def ask_for_much(_state: None, _shared: None) -> None:
    np.empty(2**60, np.uint8)


def test_what_does_not_fit_into_memory_is_a_line(client: Client, injected: Injected) -> None:
    limits = [w["memory_limit"] for w in client.scheduler_info()["workers"].values()]
    # Dask pauses a worker that comes near a limit, and says nothing.
    assert set(limits) == {0}
    with injected("too little memory") as fault:
        refused = "^chain 0: not enough memory: Unable to allocate 1.00 EiB"
        with pytest.raises(InputError, match=refused):
            list(chains.run_chains(client, [(ask_for_much, None, 1)], None))
        fault.refused()


@in_torture
def test_the_fork_server_may_die(
    client: Client, noise: Data, undisturbed: list[Rows], injected: Injected
) -> None:
    def kill_server() -> None:
        os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]

    with injected("fork server killed") as fault:
        assert rows_of(client, noise, {1: kill_server}) == undisturbed
        fault.healed()


@pytest.fixture
def killing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all workers be killed a moment after the first result of whatever runs."""

    @contextmanager
    def connected(_: int) -> Iterator[Client]:
        yield client

    run = chains.run_chains

    def disturbed(*arguments: Any) -> Iterator[tuple[int, Any]]:
        for count, result in enumerate(run(*arguments)):
            yield result
            if count == 0:
                threading.Timer(0.05, kill, (client, slice(None))).start()

    monkeypatch.setattr(cluster, "connect", connected)
    monkeypatch.setattr(chains, "run_chains", disturbed)


def slow_score(model: TrainedModel, test: LabelledImages) -> evaluation.Scores:
    time.sleep(0.2)
    return score(model, test)


score = evaluation.score


@pytest.mark.usefixtures("killing")
def test_scores_do_not_change(
    noise: Data, injected: Injected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "score", slow_score)
    arm = Arm("main", "gn", {})
    recipe = make_recipe()
    models = [
        TrainedModel(arm, NORM_PARAMS["gn"], seed, 1, trial.start(recipe, seed).weights)
        for seed in range(6)
    ]
    images = LabelledImages(noise.val_images, noise.val_labels)
    with injected("workers killed while scoring") as fault:
        got = evaluation.score_all(models, images)
        assert [s[:2] for s in got] == [score(model, images)[:2] for model in models]
        fault.healed()


@pytest.mark.usefixtures("killing")
def test_a_stage_s_tables_and_checkpoints_do_not_change(
    noise_split: Images, undisturbed: list[Rows], injected: Injected, tmp_path: Path
) -> None:
    recipe = make_recipe(epochs=EPOCHS)
    planned: Sequence[trials.Trial] = [
        trials.Trial(Arm("main", "gn", {}), recipe, seed, PART) for seed in SEEDS
    ]
    with injected("workers killed while training") as fault:
        states = trials.run(planned, noise_split, tmp_path / "history.csv", tmp_path / "kept")
        assert [[state.row for state in ended] for ended in states] == undisturbed
        assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == EPOCHS * len(SEEDS)
        fault.healed()
