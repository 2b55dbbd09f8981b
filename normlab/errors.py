"""Errors a user can mend: one line that says what, where, what was found and what is allowed."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What a disk, a file system or a right has to say. Whatever else the system refuses is a bug.
STORAGE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}


class InputError(Exception):
    """Bad input (parameters, data or model files); its message is a single line."""


@contextmanager
def unwritable(path: os.PathLike[str]) -> Iterator[None]:
    """Turn what the disk or rights refuse while `path` is written into an `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


@contextmanager
def exit_on_input_error(advice: str = "") -> Iterator[None]:
    """Turn an `InputError` into one line on standard error and exit code 1, Ctrl-C into 130.

    So is what the disk or rights refuse. `advice` is a line of its own below.
    """
    try:
        yield
    except InputError as error:
        _exit(str(error), advice)
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _exit(f"{where}{error.strerror}", advice)
    except KeyboardInterrupt:
        sys.exit(130)


def _exit(fault: str, advice: str) -> None:
    sys.exit(f"error: {fault}" + (f"\n{advice}" if advice else ""))
