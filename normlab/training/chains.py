"""Chains of tasks, each made from the result of the one before: a trial is one, an epoch a link.

A task carries the state it starts from, and the next is sent when its result has come back. So a
worker that is lost takes nothing with it but the tasks it was at, and those are sent again.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty
from typing import Any, NamedTuple, TypeVar

import cloudpickle
import dask
from distributed import Client, Future, KilledWorker, get_worker

from normlab.errors import InputError
from normlab.training import crew
from normlab.training.crew import BEFORE_ALL_ELSE, LOSSES, PATIENCE, RUN, Crew, pack, say

T = TypeVar("T")
Step = Callable[[Any, Any], Any]

LOOK = 2.0
"""Seconds between looks at the workers; a tenth of it while there is something to send."""


def run_chains(
    client: Client,
    chains: Sequence[tuple[Callable[[Any, Any], T], Any, int]],
    shared: Any,
    workers: Crew | None = None,
    names: Sequence[str] = (),
) -> Iterator[tuple[int, T]]:
    """Apply each chain's `step(state, shared)` repeatedly; yield every state as it comes.

    Parameters
    ----------
    client
        Of the cluster to use.
    chains
        A step, the state it starts from and how often to apply it.
    shared
        Data all steps read; sent to every worker once, as is every distinct step.
    workers
        Those that may do it; by default all.
    names
        What the chains are called in messages.

    Yields
    ------
    Which chain, counted from 0, and its state after one more step.

    Raises
    ------
    InputError
        If the scheduler goes away, no worker can compute, or a step has lost three workers.
    Exception
        Whatever a step raised; the other chains are abandoned.
    """
    run = _Run(client, chains, shared, workers or Crew(client), names)
    client.subscribe_topic(run.id, run.hear_of_start)
    try:
        yield from run.results()
    finally:
        client.unsubscribe_topic(run.id)
        run.forget()


class _Task(NamedTuple):
    future: Future
    number: int
    allowed: frozenset[str] | None
    """Addresses of workers; None for all."""


class _Run:
    """Chains that are being run."""

    def __init__(
        self,
        client: Client,
        chains: Sequence[tuple[Step, Any, int]],
        shared: Any,
        workers: Crew,
        names: Sequence[str],
    ) -> None:
        workers.muster()
        self.id = uuid.uuid4().hex
        self._client, self._crew = client, workers
        self._names = names or [f"chain {which}" for which in range(len(chains))]
        distinct = {id(step): step for step, _, _ in chains}
        order = list(distinct)
        self._step = [order.index(id(step)) for step, _, _ in chains]
        self._states = [state for _, state, _ in chains]
        self._left = {which: count for which, (_, _, count) in enumerate(chains) if count}
        self._waiting = set(self._left)
        self._waiting_since = time.monotonic()
        self._tasks: dict[int, _Task] = {}
        self._started: dict[int, str] = {}
        self._losses: Counter[int] = Counter()
        self._count = 0
        self._kits: dict[str, Future] = {}
        self._content = list(distinct.values()), shared
        self._send_kit()

    def results(self) -> Iterator[tuple[int, Any]]:
        """Yield each chain's states until all have ended."""
        self._look()
        while self._left:
            try:
                soon = LOOK / 10 if self._waiting else LOOK
                kind, *news = self._crew.news.get(timeout=soon) or ("look",)
            except Empty:
                kind, news = "look", []
            if kind == "started":
                self._count_losses(*news)
            elif kind == "ended" and self._current(*news):
                which = news[0]
                for state in self._take(which):
                    yield which, state
            if kind == "look" or time.monotonic() - self._looked > LOOK:
                self._look()

    def forget(self) -> None:
        """Let workers drop what they have been sent."""
        self._tasks.clear()
        self._kits.clear()
        self._kit.release()

    def hear_of_start(self, event: tuple[float, list[Any]]) -> None:
        """Take what a worker says as it starts with a task."""
        self._crew.news.put(("started", *event[1]))

    def _current(self, which: int, number: int) -> bool:
        return which in self._tasks and self._tasks[which].number == number

    def _look(self) -> None:
        """Give workers that have come what they need, and tasks of workers that have gone on."""
        self._crew.look()
        self._looked = time.monotonic()
        known, at_work = self._crew.known(), self._crew.at_work()
        for gone in self._kits.keys() - known:
            del self._kits[gone]
        for address, kit in self._kits.items():
            if kit.status in ("cancelled", "lost"):
                raise self._crew.gone()
            if kit.status == "error" and address in self._crew.fit:
                self._crew.leave_out(address, kit.exception())
        if self._kit_allowed is not None and at_work and not self._kit_allowed & known:
            self._send_kit()
        for address in at_work - self._kits.keys():
            self._kits[address] = self._client.submit(
                tuple,
                self._kit,
                key=(f"kit-{self.id}", address),
                workers=[address],
                priority=BEFORE_ALL_ELSE,
            )
            self._kits[address].add_done_callback(lambda _: self._crew.news.put(()))
        for which, task in list(self._tasks.items()):
            if task.allowed is not None and not task.allowed & known:
                self._wait(which)
        if self._crew.silent and self._ready():
            self._take_from_silent()
        self._send_waiting()

    def _send_kit(self) -> None:
        """Send what all tasks need, for workers to get from one another."""
        self._kits.clear()
        # Where Python is another one, our code does not even load.
        self._kit_allowed = frozenset(self._crew.at_work()) if self._crew.unfit else None
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            self._kit = self._client.submit(
                cloudpickle.loads,
                pack(self._client, self._content),
                pure=False,
                priority=BEFORE_ALL_ELSE,
                workers=sorted(self._kit_allowed) if self._kit_allowed else None,
            )

    def _ready(self) -> set[str]:
        """Addresses of workers that have the steps and the data."""
        at_work = self._crew.at_work()
        return {a for a, kit in self._kits.items() if kit.status == "finished" and a in at_work}

    def _take_from_silent(self) -> None:
        silent = sorted(self._crew.silent)
        processing = self._client.processing(workers=silent)
        for address, keys in processing.items():
            for which, task in list(self._tasks.items()):
                if task.future.key in keys:
                    say(f"{self._names[which]}: goes from {address} to another worker")
                    self._started.pop(which, None)
                    self._wait(which)

    def _wait(self, which: int) -> None:
        self._tasks.pop(which, None)
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.add(which)

    def _send_waiting(self) -> None:
        """Send what waits, as soon as there are workers and all of them are ready."""
        ready = self._ready()
        late = time.monotonic() - self._waiting_since > PATIENCE
        if ready and (late or ready == self._crew.at_work()):
            for which in sorted(self._waiting):
                self._send(which, ready)
            self._waiting.clear()

    def _send(self, which: int, ready: set[str]) -> None:
        self._count += 1
        allowed = None if ready == self._crew.known() else frozenset(ready)
        job = partial(
            _advance, self.id, [which, self._count], self._step[which], self._states[which]
        )
        future = self._client.submit(
            RUN,
            pack(self._client, job),
            key=(f"link-{self.id}", which, self._count),
            # The chain with most steps left goes first, so that all end together.
            priority=self._left[which],
            workers=sorted(allowed) if allowed else None,
        )
        self._tasks[which] = _Task(future, self._count, allowed)
        ended = ("ended", which, self._count)
        future.add_done_callback(lambda _: self._crew.news.put(ended))

    def _take(self, which: int) -> Iterator[Any]:
        """Take what came of a chain's task; its state, where it has one, once the next is sent."""
        future = self._tasks[which].future
        try:
            if future.cancelled():
                raise self._crew.gone()
            after = future.result(timeout=crew.SILENCE)
        except KilledWorker as error:
            self._lose(which, error.last_worker.address)
            self._wait(which)
            self._send_waiting()
            return
        except TimeoutError:
            # Its worker was lost before the result had been fetched.
            self._wait(which)
            return
        except MemoryError as error:
            raise InputError(f"{self._names[which]}: not enough memory: {error}") from error
        except OSError as error:
            raise self._crew.gone() if self._client.status != "running" else error from error
        if not after:
            # That worker has yet to be asked what it is.
            self._wait(which)
            self._crew.news.put(())
            return
        (self._states[which],) = after
        self._left[which] -= 1
        del self._losses[which], self._tasks[which]
        self._started.pop(which, None)
        if not self._left[which]:
            del self._left[which]
        elif ready := self._ready():
            self._send(which, ready)
        else:
            self._wait(which)
        yield self._states[which]

    def _count_losses(self, which: int, number: int, address: str) -> None:
        """Count a loss where a step has been started before."""
        if not self._current(which, number):
            return
        before = self._started.get(which)
        self._started[which] = address
        if before is not None:
            self._lose(which, before)

    def _lose(self, which: int, address: str) -> None:
        self._losses[which] += 1
        if self._losses[which] >= LOSSES:
            raise InputError(
                f"{self._names[which]}: lost with its worker {LOSSES} times in a row, the last "
                f"time with {address}; most likely there is too little memory"
            )
        self._crew.news.put(())


def _advance(run: str, started: list[int], step: int, state: Any) -> list[Any]:
    """Do a step on a worker: return the new state, in a list that is empty if it lacks the kit."""
    worker = get_worker()
    kit = worker.data.get((f"kit-{run}", worker.address))
    if kit is None:
        return []
    worker.log_event(run, [*started, worker.address])
    steps, shared = kit
    return [steps[step](state, shared)]
