"""Files: an output is complete or as it was before, and what is wrong with one is told in a line.

What is written takes its place when it is complete and on the disk.
"""

import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file

from normlab import scratch
from normlab.errors import InputError, unwritable

KINDS = {
    "text": "study variant arm label measure other other_label verdict layer name sentence weights "
    "registration? ln_affine? error_ratio_verdict?",
    "a whole number": "seed epoch images index true predicted count parameters tests "
    "seeds? trials? seeds_needed?",
    "a number": "lr loss accuracy train_loss train_accuracy val_loss val_accuracy test_loss "
    "test_accuracy seen_loss seen_accuracy unseen_loss unseen_accuracy easier optimism "
    "small_weights share probability probability_true difference min_p level batch_size "
    "l1_lambda? log_val_loss epochs_to_99? mean? std? low? high? effect? smallest_effect? "
    "holds_from? holds_to? p? p_adjusted? error_ratio? error_ratio_low? error_ratio_high?",
}
"""What columns of any table hold, by their names; others may hold anything. With ? or nothing."""
KIND_OF = {name.rstrip("?"): kind for kind, names in KINDS.items() for name in names.split()}
OR_NOTHING = {name[:-1] for names in KINDS.values() for name in names.split() if name[-1] == "?"}


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path` that takes its place if the block succeeds.

    Raises
    ------
    InputError
        If something cannot be written.
    """
    with unwritable(path), scratch.folder(path) as made:
        fresh = made / "new"
        fresh.mkdir()
        yield fresh
        for written in [*fresh.rglob("*"), fresh]:
            _flush(written)
        if not path.exists():
            fresh.rename(path)
        elif not _exchange(fresh, path):
            path.rename(made / "old")
            fresh.rename(path)
        _flush(path.parent)


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its directory.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = scratch.beside(path)
        try:
            fresh.write_bytes(content)
            _flush(fresh)
            fresh.replace(path)
            _flush(path.parent)
        except BaseException:
            fresh.unlink(missing_ok=True)  # Ctrl-C may come when it has just been moved.
            raise


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some file systems cannot do it for folders.
            raise
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step, if the system and its file system can do that."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    exchange = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    if hasattr(library, "renameat2"):
        failed = library.renameat2(-1, names[0], -1, names[1], exchange)
    elif sys.platform == "darwin":
        failed = library.renamex_np(*names, exchange)
    else:
        return False
    number = ctypes.get_errno()
    if failed and number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(other))
    return not failed


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` to `path` as CSV, floats with six significant digits."""
    write(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def write_metrics(path: Path, values: dict[str, Any]) -> None:
    """Write `values` to `path` as JSON in the order given, floats rounded to five decimals."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return round(value, 5) if isinstance(value, float) else value

    write(path, (json.dumps(rounded(values), indent=2, allow_nan=False) + "\n").encode())


def read_table(
    path: Path, columns: str = "", dtype: Mapping[str, Any] | None = None, or_empty: bool = False
) -> pd.DataFrame:
    """Read a CSV file and check it.

    Parameters
    ----------
    path
        Of the file.
    columns
        Those that it must have, with spaces between.
    dtype
        Types of columns; digests are text, though some look like numbers.
    or_empty
        Whether it may have no rows.

    Raises
    ------
    InputError
        If it cannot be read, a column is missing, there are no rows, or a cell is not of its
        column's kind: file, column, got, allowed.
    """
    types = {"weights": str, **(dtype or {})}
    try:
        frame = pd.read_csv(path, dtype=types)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: got more cells in a row than columns, allowed: as many")
    for name in columns.split():
        if name not in frame:
            got = ", ".join(map(str, frame.columns))
            raise InputError(f"{path}: column {name} is missing: got {got}")
    if frame.empty and not or_empty:
        raise InputError(f"{path}: got no rows, allowed: one or more")
    for name in frame.columns.intersection(list(KIND_OF)):
        _check_column(path, name, frame[name])
    return frame


def _check_column(path: Path, name: str, cells: pd.Series) -> None:
    kind = KIND_OF[name]
    given = cells.dropna()
    wrong = cells[:0] if name in OR_NOTHING else cells[cells.isna()]
    if kind != "text" and len(given):
        numbers = pd.to_numeric(given, errors="coerce")
        whole = kind == "a whole number"
        wrong = pd.concat([wrong, given[numbers.isna() | (whole & (numbers % 1 != 0))]])
    if len(wrong):
        row = wrong.index[0]
        got = "nothing" if pd.isna(wrong[row]) else f"{wrong[row]!r}"
        raise InputError(f"{path}: column {name}, line {row + 2}: got {got}, allowed: {kind}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: got {type(values).__name__}, allowed: an object")
    return values


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file."""
    try:
        return load_file(path)
    # A type that NumPy does not have is a KeyError.
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise _unreadable(path, error) from None


def read_images(path: Path, expected: Iterable[int], side: int) -> dict[int, NDArray[np.uint8]]:
    """Read the misclassified test images, (side, side) uint8 each, by their index.

    Raises
    ------
    InputError
        If they are not those expected.
    """
    stored, known = read_tensors(path), set(expected)
    got = {name: f"{array.dtype} {list(array.shape)}" for name, array in stored.items()}
    count = len(known)
    allowed = {"images": f"uint8 [{count}, {side}, {side}]", "index": f"int64 [{count}]"}
    if got != allowed:
        raise InputError(f"{path}: got {_listed(got)}, allowed: {_listed(allowed)}")
    index = stored["index"].tolist()
    if strange := sorted(set(index) ^ known):
        raise InputError(
            f"{path}: index: got {'' if strange[0] in index else 'no '}{strange[0]}, allowed: the "
            "images that the table of misclassified ones has"
        )
    return dict(zip(index, stored["images"], strict=True))


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in sorted(tensors.items())) or "nothing"


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read: {' '.join(str(error).split())}")
