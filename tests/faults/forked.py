"""Run stages again and again, each time in a fork of this process, which has imported them.

Started by `rehearsal.py` beside this, with `writes.c` preloaded. A line of the standard input is a
run: the project, the folder in it, which write to fail with which error, the stage and its
arguments. The answer is how often it wrote, if it lived to tell, and its exit status.
"""

import ctypes
import os
import shlex
import sys
from importlib import import_module

from normlab.errors import exit_on_input_error

STAGES = ["download", "train", "evaluate", "plot", "study", "score", "judge", "report"]


def run(project: str, folder: str, at: int, error: int, name: str, *arguments: str) -> None:
    """Run a stage in a folder of the project and end this process."""
    os.chdir(os.path.join(project, folder))  # noqa: PTH118
    library = ctypes.CDLL(None)
    library.arm(project.encode(), ctypes.c_long(at), error)
    status = 0
    try:
        with exit_on_input_error():
            import_module(f"stages.{name}").main(*arguments)
    except SystemExit as end:
        print(end, file=sys.stderr)
        status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 2
    library.counted.restype = ctypes.c_long
    print(library.counted(), end=" ", flush=True)
    os._exit(status)


if __name__ == "__main__":
    for name in STAGES:
        import_module(f"stages.{name}")
    for line in sys.stdin:
        project, folder, at, error, *command = shlex.split(line)
        child = os.fork()
        if not child:
            run(project, folder, int(at), int(error), *command)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
