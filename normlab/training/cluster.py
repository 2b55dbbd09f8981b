"""Where tasks run: on this machine's cores, or wherever Dask's configuration points."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security
from distributed.comm import connect as connect_to
from distributed.utils import get_mp_context

from normlab.errors import InputError
from normlab.training.crew import PATIENCE, SILENCE

WORKERS = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # It would stop every process a hundred times a second to note where it is.
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.worker-ttl": f"{SILENCE:.0f}s",
    # How long one that starts anew may take, on a machine that is busy.
    "distributed.deploy.lost-worker-timeout": "5 minutes",
    "distributed.scheduler.active-memory-manager.start": False,
    # What listens has no pages.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
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
# What a UNIX socket's path may have, less the null at its end, where that is least (macOS); and
# what multiprocessing appends to the folder for temporary files.
LONGEST_SOCKET = 103
SOCKET = "/pymp-xxxxxxxx/listener-xxxxxxxx"
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a private one is made in it


def start_forkserver(module: str) -> None:
    """Start the process that workers of our own are forked from; return while it imports `module`.

    A stage calls this before it imports torch itself, so that both do at the same time, and
    workers, which have what that process has imported, need not. They get their allocation from
    it, and they ignore Ctrl-C. A terminal sends that to all processes at once; workers that died
    of it would each print a traceback and be started again, before the stage could end them.

    Raises
    ------
    InputError
        If there is no folder for its socket.
    """
    if _scheduler():
        return
    with dask.config.set(WORKERS):
        # Dask sets a list of its own when it makes the context, which would replace this one.
        get_mp_context().set_forkserver_preload(["distributed", module])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment, folder = dict(os.environ), tempfile.tempdir
    os.environ.update(ALLOCATION)
    tempfile.tempdir = _short_folder()
    try:
        forkserver.ensure_running()
    finally:
        tempfile.tempdir = folder
        signal.signal(signal.SIGINT, before)
        for name in ALLOCATION:
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def connect(chains: int) -> Iterator[Client]:
    """Yield a client of the configured scheduler, or of a cluster of its own on this machine.

    A scheduler is configured as for any Dask program, for instance by `DASK_SCHEDULER_ADDRESS`;
    our code travels to its workers with the tasks, so they need our dependencies but not us. A
    cluster of our own has a single-threaded worker per core, at most one per chain of tasks. It
    listens on the loopback alone, to what has the keys that are made for it and kept in memory.

    Raises
    ------
    InputError
        If the scheduler does not answer, or workers cannot be started here.
    """
    if address := _scheduler():
        with _client(address) as client:
            yield client
        return
    start_forkserver("normlab.training")
    with (
        dask.config.set(WORKERS),
        _own_cluster(min(CPU_COUNT, chains)) as own,
        Client(own) as client,
    ):
        yield client


async def _greet(address: str) -> None:
    """Connect; without a time limit, Dask waits for ever for one that takes calls and is silent."""
    arguments = Security().get_connection_args("client")
    connecting = connect_to(address, timeout=PATIENCE / 2, **arguments)
    (await asyncio.wait_for(connecting, PATIENCE)).abort()


def _client(address: str) -> Client:
    try:
        asyncio.run(_greet(address))
        return Client(address, timeout=PATIENCE / 2)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        why = str(error.__cause__ or error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"scheduler: got {address}, which does not answer ({why}), allowed: the address of a "
            "Dask scheduler that runs"
        ) from error


def _own_cluster(workers: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            # Dask would pause a worker that has more than its share, without a word.
            memory_limit=0,
            host="127.0.0.1",
            security=Security.temporary(),
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        )
    except (OSError, RuntimeError) as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        raise InputError(f"workers: cannot be started here: {why}") from error


def _scheduler() -> str | None:
    address: str | None = dask.config.get("scheduler-address", None)
    return address


def _short_folder() -> str:
    """Where a socket's path is short enough; the folder for temporary files if that is."""
    own = tempfile.gettempdir()
    for folder in (own, *SHORT_FOLDERS):
        fits = len(os.fsencode(folder + SOCKET)) <= LONGEST_SOCKET
        if fits and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise InputError(
        f"TMPDIR: got {own}, which is too long for a socket, allowed: at most "
        f"{LONGEST_SOCKET - len(SOCKET)} bytes"
    )
