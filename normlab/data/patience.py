"""Work on a network, waited for as long as it gets on: what trickles never times out by itself."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from normlab.errors import InputError


class Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar that knows when it last moved."""

    def __init__(self, **settings: Any) -> None:
        self.moved = time.monotonic()
        super().__init__(**settings)

    def update(self, n: float | None = 1) -> bool | None:
        """Move on."""
        self.moved = time.monotonic()
        return super().update(n)


def call(work: Callable[[], None], bar: Bar, seconds: float) -> None:
    """Call `work`, which moves `bar`, and raise what it raises.

    Raises
    ------
    InputError
        If the bar does not move for so many seconds; the work is left to itself.
    """
    done: Future[None] = Future()
    # A daemon, so that what is left behind does not keep the program from ending.
    threading.Thread(target=partial(_settle, done, work), daemon=True).start()
    while (left := bar.moved + seconds - time.monotonic()) > 0 and not done.done():
        wait([done], left)
    if not done.done():
        raise InputError(f"too little came within {seconds:g} s")
    done.result()


def run(
    command: Sequence[str], scratch: Path, seconds: float, here: Path | None = None
) -> tuple[int, str]:
    """Run a command that fills a folder; return its exit code and what it said of errors.

    It runs in the folder `here`, or else in this process's.

    Raises
    ------
    InputError
        If the folder does not grow for so many seconds; the command is ended.
    """
    stderr = scratch / "stderr"
    with (
        stderr.open("wb") as stream,
        subprocess.Popen(  # noqa: S603  who calls says what it runs
            command,
            cwd=here,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        ) as process,
    ):
        try:
            size, moved = 0, time.monotonic()
            while process.poll() is None:
                if (now := _size(scratch)) != size:
                    size, moved = now, time.monotonic()
                if time.monotonic() > moved + seconds:
                    raise InputError(f"too little came within {seconds:g} s")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        except BaseException:
            process.kill()
            raise
    return process.returncode, stderr.read_text(encoding="utf-8", errors="replace")


def _settle(future: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # whatever it is, who waits is to raise it
        future.set_exception(error)
    else:
        future.set_result(None)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, some of which may go while they are counted."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
