"""Atomic writes: an output is complete or it is as it was before."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


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
        Path(scratch).unlink()
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
