"""Files: writing is atomic, and what cannot be read is named in one line.

An output is complete or it is as it was before.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file

from normlab.errors import InputError


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path` that takes its place if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(scratch / "old")
        fresh.rename(path)
    finally:
        shutil.rmtree(scratch)


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.chmod(scratch, 0o644)  # noqa: PTH101  mkstemp's 0600 would hide reports from others
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)  # Ctrl-C may come when it has just been moved.
        raise


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


def read_table(path: Path, dtype: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Read a CSV file, with types of columns; digests are text, though some look like numbers."""
    types = {"weights": str, **(dtype or {})}
    try:
        frame = pd.read_csv(path, dtype=types)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return frame


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return values


def read_text(path: Path) -> str:
    """Read a text file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file."""
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def read_images(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Read the misclassified test images, (28, 28) uint8 each, by their index."""
    stored = read_tensors(path)
    return dict(zip(stored["index"].tolist(), stored["images"], strict=True))
