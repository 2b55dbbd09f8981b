"""DVC as a command that is waited for."""

import subprocess
import sys
from pathlib import Path
from typing import TextIO


def run(*words: str, folder: Path | None = None, stdout: TextIO | None = None) -> int:
    """Run DVC in `folder`, or else here, to its end, and return its exit status.

    Ctrl-C goes to it as well: it is given the time to tidy up.
    """
    command = [sys.executable, "-m", "dvc", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=stdout)  # noqa: S603
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
