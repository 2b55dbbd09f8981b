"""Trials as tasks on Dask: on this machine's cores, or wherever Dask's configuration points.

An epoch is a task and a trial a chain of them. That lets three trials keep two cores busy to the
end, and every epoch that comes back is one that an interrupted run need not repeat.
"""

import operator
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, TypeVar

import cloudpickle
import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, as_completed
from distributed.utils import get_mp_context

import normlab

T = TypeVar("T")

WORKERS = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # It would stop every process a hundred times a second to note where it is.
    "distributed.worker.profile.enabled": False,
}
# Each training step takes and frees the same megabytes: left to its defaults, the C library
# returns them to the system every time and gets them back a page fault at a time. It reads these
# once, as a process starts, and forked ones keep what the first one read.
ALLOCATION = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def start_forkserver(module: str) -> None:
    """Start the process that workers of our own are forked from; return while it imports `module`.

    A stage calls this before it imports torch itself, so that both do at the same time, and
    workers, which have what that process has imported, need not. They get their allocation from
    it, and they ignore Ctrl-C. A terminal sends that to all processes at once; workers that died
    of it would each print a traceback and be started again, before the stage could end them.
    """
    if _scheduler():
        return
    with dask.config.set(WORKERS):
        # Dask sets a list of its own when it makes the context, which would replace this one.
        get_mp_context().set_forkserver_preload(["distributed", module])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = dict(os.environ)
    os.environ.update(ALLOCATION)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
        for name in ALLOCATION:
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def connect(chains: int) -> Iterator[Client]:
    """Yield a client of the configured scheduler, or of a cluster of its own on this machine.

    A scheduler is configured as for any Dask program, for instance by `DASK_SCHEDULER_ADDRESS`;
    our code travels to its workers with the tasks, so they need our dependencies but not us. A
    cluster of our own has a single-threaded worker per core, at most one per chain of tasks.
    """
    if _scheduler():
        with Client() as client:
            yield client
        return
    start_forkserver("normlab.training")
    with dask.config.set(WORKERS):
        workers = min(CPU_COUNT, chains)
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as own,
            Client(own) as client,
        ):
            yield client


def call(client: Client, function: Callable[[], T]) -> T:
    """Call `function` on a worker and return its result, or raise what it raised."""
    sent = _send(client, function, everywhere=False)
    result: T = client.submit(operator.call, sent, pure=False).result()
    return result


def run_chains(
    client: Client,
    chains: Sequence[tuple[Callable[[Any, Any], T], Any, int]],
    shared: Any,
) -> Iterator[tuple[int, T]]:
    """Apply each chain's `step(state, shared)` repeatedly; yield every state as it comes.

    Parameters
    ----------
    chains
        A step, the state it starts from and how often to apply it.
    shared
        Data all steps read; sent to every worker once, as is every distinct step.

    Yields
    ------
    Which chain, counted from 0, and its state after one more step.

    Raises
    ------
    Exception
        Whatever a step raised; the other chains are abandoned.
    """
    distinct = {id(step): step for step, _, _ in chains}
    steps = {key: _send(client, step, everywhere=True) for key, step in distinct.items()}
    data = _send(client, shared, everywhere=True)
    chain_of = {}
    for which, (step, state, count) in enumerate(chains):
        link = _send(client, state, everywhere=False)
        for left in range(count, 0, -1):
            # The chain with most steps left goes first, so that all end together.
            link = client.submit(
                operator.call, steps[id(step)], link, data, pure=False, priority=left
            )
            chain_of[link] = which
    for future, state in as_completed(chain_of, loop=client.loop, with_results=True):
        yield chain_of[future], state


def _scheduler() -> str | None:
    address: str | None = dask.config.get("scheduler-address", None)
    return address


def _send(client: Client, value: Any, everywhere: bool) -> Any:
    """Put `value` on a worker or on all, with its code if they are not our own."""
    if client.cluster is not None:
        (sent,) = client.scatter([value], broadcast=everywhere, hash=False)
        return sent
    cloudpickle.register_pickle_by_value(normlab)
    try:
        pickled = cloudpickle.dumps(value)
    finally:
        cloudpickle.unregister_pickle_by_value(normlab)
    (sent,) = client.scatter([pickled], broadcast=everywhere, hash=False)
    return client.submit(cloudpickle.loads, sent, pure=False)
