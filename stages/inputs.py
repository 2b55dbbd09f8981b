"""Reading what other stages wrote: a file that cannot be read is named in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file

from normlab.errors import InputError


def table(path: Path, dtype: dict[str, type] | None = None) -> pd.DataFrame:
    """Read a CSV file, with types of columns; digests are text, though some look like numbers."""
    types = {"weights": str} | (dtype or {})
    try:
        frame = pd.read_csv(path, dtype=types)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return frame


def metrics(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    return values


def text(path: Path) -> str:
    """Read a text file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file."""
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def images(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Read the misclassified test images, (28, 28) uint8 each, by their index."""
    stored = tensors(path)
    return dict(zip(stored["index"].tolist(), stored["images"], strict=True))
