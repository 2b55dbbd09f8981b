"""The workers of a cluster: asked what they compute with, before they are given anything to do.

Those that cannot compute, or compute otherwise than the most, are named and left out.
"""

import importlib.metadata
import operator
import platform
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cloudpickle
from distributed import Client, Future, SpecCluster, Status
from toolz import compose
from tqdm import tqdm

import normlab
from normlab.errors import InputError

RUN = compose(operator.call, cloudpickle.loads)
"""Calls what `pack` has packed, on a worker that need not have our code."""
SILENCE = 60.0
"""Seconds after which a worker that has not answered is taken for stopped."""
PATIENCE = 10.0
"""Seconds that a scheduler, or the last of the workers to say what they are, is waited for."""
BEFORE_ALL_ELSE = 10**9
"""A priority."""
LOSSES = 3
VERSIONS = ("numpy", "torch")


class Kind(NamedTuple):
    """What a worker computes with."""

    arithmetic: tuple[str, ...] = ()
    """What decides the bits: the same for all workers of a crew."""
    names: tuple[str, ...] = ()
    """What it is called; for a reader."""


def pack(client: Client, value: Any) -> bytes:
    """Pickle `value`, with its code where that is ours and the workers are not."""
    if client.cluster is not None:
        packed: bytes = cloudpickle.dumps(value)
        return packed
    cloudpickle.register_pickle_by_value(normlab)
    try:
        packed = cloudpickle.dumps(value)
    finally:
        cloudpickle.unregister_pickle_by_value(normlab)
    return packed


def say(line: str) -> None:
    """Write a line to standard error, above a progress bar."""
    tqdm.write(line, sys.stderr)


class Crew:
    """The workers of a client, as far as they are known.

    Parameters
    ----------
    client
        Of the cluster.
    describe
        Says on a worker what it computes with; raises if it cannot compute.
    """

    def __init__(self, client: Client, describe: Callable[[], Kind] = Kind) -> None:
        self.client = client
        self.news: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        """What has happened; an empty tuple where a look is enough."""
        self.fit: dict[str, Kind] = {}
        self.unfit: dict[str, BaseException] = {}
        self.silent: set[str] = set()
        self._describe = pack(client, describe)
        self._asked: dict[str, list[Future]] = {}
        self._answered: dict[str, Kind] = {}
        self._seen: dict[str, tuple[float, float]] = {}
        self._lost_unheard = 0
        self._arithmetic: tuple[str, ...] | None = None
        self._alone_since: float | None = None

    def muster(self) -> list[Kind]:
        """Wait until the workers have said what they are; return that of those that are fit.

        Raises
        ------
        InputError
            If no worker can compute, or the scheduler does not answer.
        """
        summons = None
        since = time.monotonic()
        while self._arithmetic is None:
            self.look()
            unheard = self._seen.keys() - self._answered.keys() - self.unfit.keys()
            late = time.monotonic() - since > PATIENCE
            if self._answered and (late or not unheard):
                counted = Counter(kind.arithmetic for kind in self._answered.values())
                self._arithmetic = counted.most_common(1)[0][0]
                for address, kind in self._answered.items():
                    self._judge(address, kind)
                break
            if self.unfit and not unheard:
                self._refuse()
            if not self._seen and summons is None:
                # There is nothing but tasks that a cluster grows for.
                summons = self._ask(platform.python_version)
            self._wait()
        return list(self.fit.values())

    def look(self) -> None:
        """See which workers have come, gone, answered, or fallen silent.

        Raises
        ------
        InputError
            If the scheduler does not answer, or one worker after the other dies of the question.
        """
        self._revive()
        now = time.monotonic()
        last_seen = self._last_seen()
        for gone in self._seen.keys() - last_seen.keys():
            self._lost_unheard += gone in self._asked
            for known in (self._seen, self._asked, self._answered, self.fit, self.unfit):
                known.pop(gone, None)
        for address, moment in last_seen.items():
            new = address not in self._seen
            if new or self._seen[address][0] != moment:
                self._seen[address] = (moment, now)
            if new:
                self._question(address)
        for address in list(self._asked):
            self._hear(address)
        if self._lost_unheard >= LOSSES and not self._answered:
            raise InputError(
                f"workers: {self._lost_unheard} were lost before they could say what they compute "
                "with; most likely there is too little memory"
            )
        silent = {a for a, (_, heard) in self._seen.items() if now - heard > SILENCE}
        for address in sorted(silent - self.silent):
            say(f"{address}: has not answered for {now - self._seen[address][1]:.0f} seconds")
        self.silent = silent
        self._tell_of_waiting(now)
        if self._arithmetic is not None and self.unfit.keys() == self._seen.keys() and self._seen:
            self._refuse()

    def at_work(self) -> set[str]:
        """Addresses of the workers that are fit, and not silent."""
        return self.fit.keys() - self.silent

    def known(self) -> set[str]:
        """Addresses of all workers."""
        return set(self._seen)

    def leave_out(self, address: str, why: BaseException) -> None:
        """Give a worker nothing to do, and say why."""
        self.fit.pop(address, None)
        self.unfit[address] = why
        if self.client.cluster is None or self.fit:
            say(f"{address}: left out: {_line(why)}")

    def gone(self) -> InputError:
        """Say that the scheduler has gone."""
        return InputError(
            f"scheduler: {_address(self.client)} has gone; epochs that have ended are kept, and "
            "the next run goes on from there"
        )

    def _last_seen(self) -> Mapping[str, float]:
        scheduler = self.client.scheduler
        if scheduler is None or self.client.status != "running":
            raise self.gone()
        try:
            found = self.client.sync(scheduler.identity, n_workers=-1, callback_timeout=SILENCE)
        except TimeoutError as error:
            raise InputError(
                f"scheduler: {_address(self.client)} has not answered for {SILENCE:.0f} seconds"
            ) from error
        except OSError as error:
            raise self.gone() from error
        return {a: w["last_seen"] for a, w in found["workers"].items() if w["status"] == "running"}

    def _revive(self) -> None:
        """Start workers of our own anew that died while they started: Dask gives those up."""
        own = self.client.cluster
        if not isinstance(own, SpecCluster):
            return
        ended = [n for n, w in own.workers.items() if w.status in (Status.failed, Status.closed)]
        for name in ended:
            self._lost_unheard += 1
            del own.workers[name]
        if ended:
            own.scale(len(own.worker_spec))

    def _ask(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Future:
        future = self.client.submit(
            function, *arguments, pure=False, priority=BEFORE_ALL_ELSE, **options
        )
        future.add_done_callback(lambda _: self.news.put(()))
        return future

    def _question(self, address: str) -> None:
        questions: list[tuple[Any, ...]] = []
        if self.client.cluster is None:
            questions += [(platform.python_version,)]
            questions += [(importlib.metadata.version, name) for name in VERSIONS]
        else:
            questions += [(RUN, self._describe)]
        self._asked[address] = [self._ask(*each, workers=[address]) for each in questions]

    def _hear(self, address: str) -> None:
        """Take what a worker has answered; a stranger's versions come before our code."""
        asked = self._asked[address]
        if not all(future.done() for future in asked):
            return
        if any(future.cancelled() for future in asked):
            raise self.gone()
        self._asked.pop(address)
        try:
            answers = [future.result(SILENCE) for future in asked]
            if not isinstance(answers[0], tuple):
                self._compare(address, answers)
                self._asked[address] = [self._ask(RUN, self._describe, workers=[address])]
                return
        except Exception as error:
            self.leave_out(address, error)
            return
        self._lost_unheard = 0
        self._answered[address] = Kind(*answers[0])
        if self._arithmetic is not None:
            self._judge(address, self._answered[address])

    def _compare(self, address: str, versions: list[str]) -> None:
        here = [platform.python_version(), *map(importlib.metadata.version, VERSIONS)]
        if versions[0].split(".")[:2] != here[0].split(".")[:2]:
            raise InputError(f"python: got {versions[0]}, allowed: that of {here[0]}, as here")
        names = ("python", *VERSIONS)
        for name, there, ours in zip(names, versions, here, strict=True):
            if there != ours:
                say(f"{address}: has {name} {there}, and here is {ours}")

    def _judge(self, address: str, kind: Kind) -> None:
        if kind.arithmetic == self._arithmetic:
            self.fit[address] = kind
            return
        got, allowed = (", ".join(a) for a in (kind.arithmetic, self._arithmetic or ()))
        self.leave_out(address, InputError(f"got {got}, allowed: that of the others, {allowed}"))

    def _refuse(self) -> None:
        address, why = next(iter(self.unfit.items()))
        if self.client.cluster is not None:
            if isinstance(why, MemoryError | OSError):
                raise InputError(f"workers: {_line(why)}") from why
            raise why
        more = f" (and {len(self.unfit) - 1} more workers)" if len(self.unfit) > 1 else ""
        raise InputError(f"{address}{more}: {_line(why)}") from why

    def _tell_of_waiting(self, now: float) -> None:
        if self._seen.keys() - self.unfit.keys() - self.silent:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now + 1
        elif now > self._alone_since:
            say(f"waiting for workers of {_address(self.client)}")
            self._alone_since = now + SILENCE

    def _wait(self) -> None:
        try:
            self.news.get(timeout=0.5)
        except queue.Empty:
            return


def _address(client: Client) -> str:
    address = client.scheduler.address if client.scheduler else client.scheduler_info()["address"]
    return str(address)


def _line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
