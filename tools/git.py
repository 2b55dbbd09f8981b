"""Git: a command, its reason told in one line where it fails; a copy of all that it knows."""

import shutil
import subprocess
from collections.abc import Callable
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


def copy_known(root: Path, folder: Path, wanted: Callable[[str], bool] = bool) -> None:
    """Copy the wanted files that Git knows or would add, as they are in `root`, links as links.

    `wanted` takes the path of a file as from `root`; by default it wants all.
    """
    listed = git("ls-files", "-coz", "--exclude-standard", folder=root).split("\0")
    for name in filter(wanted, dict.fromkeys(filter(None, listed))):
        if (root / name).is_file() or (root / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name, follow_symlinks=False)


def copy_history(root: Path, folder: Path) -> None:
    """Give a repository without a commit the history of another, as far as that one has it.

    Its files stay as they are. `judge` asks the history which claims were registered.
    """
    if not git("rev-list", "--all", "--max-count=1", folder=root):
        return
    git("fetch", "--quiet", "--update-shallow", str(root.resolve()), "HEAD", folder=folder)
    git("update-ref", "HEAD", "FETCH_HEAD", folder=folder)
