"""Run a stage: `python -m stages NAME [ARGUMENT ...]`, as `dvc.yaml` has it.

However it is told to end, by Ctrl-C, another signal or the end of what started it, it says so in a
line, ends its workers, and its exit code is 128 and the signal's number.
"""

import atexit
import logging
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from normlab import scratch
from normlab.errors import exit_on_input_error
from stages import provenance

# What the workers of a stage have imported before their first task.
WORKERS_IMPORT = {
    "train": "normlab.training.trials",
    "study": "normlab.training.trials",
    "evaluate": "normlab.evidence.evaluation",
    "score": "normlab.evidence.evaluation",
}
TEMPORARY = f"normlab-{platform.node()[:16]}-{os.getuid()}"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_END = 10.0

Handler = Callable[[int, FrameType | None], Any] | int | None

told: list[tuple[int, float]] = []
"""The signal that has told this to end, and when."""


def main(name: str, *arguments: str) -> None:
    """Import and run a stage."""
    if name in WORKERS_IMPORT:
        from normlab.training import cluster

        # First of all, since importing torch takes most of a stage's start: the process that
        # workers are forked from does it while this one does.
        cluster.start_forkserver(WORKERS_IMPORT[name])
    stage = import_module(f"stages.{name}")
    handle(interrupt, leave)
    stage.main(*arguments)


def handle(handler: Handler, *instead_of: Handler) -> None:
    """Handle what ends a process by other means; what is ignored, as with `nohup`, stays so."""
    for number in ENDING:
        if signal.getsignal(number) in instead_of:
            signal.signal(number, handler)


def leave(number: int, _: FrameType | None = None) -> None:
    """End this process now, as it may while it imports: nothing is to be put right."""
    os._exit(say(number))


def say(number: int) -> int:
    """Tell of the end by a signal; return the exit code."""
    name = signal.Signals(number).name
    os.write(2, f"ended by {name}: a training goes on from here when it is run again\n".encode())
    return 128 + number


def interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt the stage, which then puts right what it has begun; once, whatever comes after."""
    if in_destructor(frame):
        signal.signal(signal.SIGALRM, lambda _, now: interrupt(number, now))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        return
    handle(signal.SIG_IGN, interrupt)
    told.append((number, time.monotonic()))
    logging.disable()  # Dask would tell of every connection that this breaks.
    raise KeyboardInterrupt


def in_destructor(frame: FrameType | None) -> bool:
    """Whether Python would let an exception pass no further than some destructor's end."""
    while frame is not None and not frame.f_code.co_name.endswith("__del__"):
        if frame.f_code.co_filename.endswith("weakref.py"):
            return True
        frame = frame.f_back
    return frame is not None


def set_temporary_folder() -> None:
    """Have this process and those that it starts put temporary files where they are found again.

    It goes when this process ends, after all else, or if that is killed when a stage next starts.
    """
    made = ExitStack()
    folder = made.enter_context(scratch.folder(Path(tempfile.gettempdir()) / TEMPORARY))
    atexit.register(made.close)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def watch(parent: int | None) -> None:
    """Terminate this process when the one that started it is gone; end it if that is in vain."""
    while True:
        time.sleep(0.5)
        if told and time.monotonic() - told[0][1] > SECONDS_TO_END:
            leave(told[0][0])
        if parent not in (None, os.getppid()) and not told:
            os.kill(os.getpid(), signal.SIGTERM)


def way_back() -> str:
    """Say how to get back what DVC has removed before it ran this, if it did."""
    stage = os.environ.get("DVC_STAGE")
    return f"what was there before: dvc checkout {stage} && git checkout reports" if stage else ""


if __name__ == "__main__":
    handle(leave, signal.SIG_DFL, signal.default_int_handler)
    # `stages/python` has let Ctrl-C wait until there is something to handle it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    parent = os.getppid() if "DVC_STAGE" in os.environ else None
    threading.Thread(target=watch, args=[parent], daemon=True).start()
    try:
        with exit_on_input_error(way_back()), provenance.unchanged(*sys.argv[1:]):
            set_temporary_folder()
            provenance.tell_of_other_packages()
            main(*sys.argv[1:])
    finally:
        if told:
            sys.exit(say(told[0][0]))
