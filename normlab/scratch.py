"""What is being written: `.NAME.scratch-PID` beside NAME, whose place it takes when it is complete.

What a killed process left is removed by the next that writes there.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def beside(path: Path) -> Path:
    """Name this process's scratch for `path`, and clear away that of processes that are gone."""
    clear(path)
    return path.with_name(f".{path.name}.scratch-{os.getpid()}")


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, for this user alone, that is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = beside(path)
    made.mkdir(mode=0o700)
    try:
        yield made
    finally:
        _remove(path, made)


def clear(path: Path) -> None:
    """Remove what killed processes left beside `path`; put it back if one had just moved it away.

    What belongs to another user, or to a process that is alive, stays.
    """
    for left in sorted(path.parent.glob(f".{path.name}.scratch-[0-9]*")):
        # Its owner, or another process that clears away, may have removed it in the meantime.
        with suppress(FileNotFoundError):
            if left.lstat().st_uid == os.getuid() and not _in_use(left):
                _remove(path, left)


def _in_use(left: Path) -> bool:
    owner = int(left.name.rpartition("-")[2])
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # In a container, this process may have the number of the one before it.
    return owner != os.getpid()


def _remove(path: Path, left: Path) -> None:
    if (left / "old").exists() and not path.exists():
        (left / "old").rename(path)
    if left.is_dir() and not left.is_symlink():
        # Another process may have something to remove there too.
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink()
