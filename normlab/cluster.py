"""Trials as tasks on Dask: on this machine's cores, or wherever Dask's configuration points.

An epoch is a task and a trial a chain of them. That lets three trials keep two cores busy to the
end, and every epoch that comes back is one that an interrupted run need not repeat.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import cloudpickle
import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, as_completed

import normlab

T = TypeVar("T")


@contextmanager
def connect(chains: int) -> Iterator[Client]:
    """Yield a client of the configured scheduler, or of a cluster of its own on this machine.

    A scheduler is configured as for any Dask program, for instance by `DASK_SCHEDULER_ADDRESS`;
    our code travels to its workers with the tasks, so they need our dependencies but not us. A
    cluster of our own has a single-threaded worker per core, at most one per chain of tasks.
    """
    cloudpickle.register_pickle_by_value(normlab)
    try:
        if dask.config.get("scheduler-address", None):
            with Client() as client:
                yield client
        else:
            # Without this, workers that an interrupt stops describe their end at length.
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            workers = min(CPU_COUNT, chains)
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=None
                ) as cluster,
                Client(cluster) as client,
            ):
                yield client
    finally:
        cloudpickle.unregister_pickle_by_value(normlab)


def iterate(
    client: Client,
    step: Callable[[T, Any], T],
    chains: Sequence[tuple[T, int]],
    shared: Any,
) -> Iterator[T]:
    """Apply `step(state, shared)` repeatedly to every chain's state; yield each state as it comes.

    Parameters
    ----------
    chains
        Pairs of a state and how many steps it has to go.
    shared
        Data all steps read; sent to every worker once.

    Raises
    ------
    Exception
        Whatever a step raised; the other chains are abandoned.
    """
    data = client.scatter(shared, broadcast=True, hash=False)
    futures = []
    for state, steps in chains:
        link: Any = state
        for left in range(steps, 0, -1):
            # The chain with most steps left goes first, so that all end together.
            link = client.submit(step, link, data, pure=False, priority=left)
            futures.append(link)
    for _, state in as_completed(futures, with_results=True):
        yield state
