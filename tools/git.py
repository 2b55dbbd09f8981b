"""A Git command, its reason told in one line where it fails."""

import subprocess
from pathlib import Path

from normlab.errors import InputError

PROJECTS = (".", "studies")
"""Folders of this repository that are a DVC project."""


def git(*arguments: str, folder: Path | None = None) -> str:
    """Return what a Git command prints, run in `folder` or else here.

    Raises
    ------
    InputError
        If it fails: the folder, the command, and what Git says of it.
    """
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        where = f"{folder}: " if folder else ""
        raise InputError(f"{where}git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
