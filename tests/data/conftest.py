"""Where the tests of a data set's sources get small files from, and how they ask for them."""

import gzip
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import MNIST

from normlab.data import datasets, idx, sources
from normlab.errors import InputError

NAMES = list(datasets.MNIST.files)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def expected(data: bytes) -> str:
    """Return how a refusal of anything but these bytes ends."""
    return f", expected {len(data)} bytes with SHA-256 {digest(data)}"


def fetch(incoming: Path, *in_place: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return the files, and what was said of how they were found, a line each."""
    lines: list[str] = []
    files = sources.fetch(datasets.MNIST, incoming, in_place, lines.append)
    assert not any("\n" in line for line in lines)
    return files, lines


def fetch_error(incoming: Path, *in_place: Path) -> tuple[str, list[str]]:
    """Return the error and what was said before it, a line each."""
    lines: list[str] = []
    with pytest.raises(InputError) as raised:
        sources.fetch(datasets.MNIST, incoming, in_place, lines.append)
    assert not any("\n" in line for line in [*lines, str(raised.value)])
    return str(raised.value), lines


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of the Python that runs pip."""

    def put(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, python: Callable[[str], None]) -> dict[str, bytes]:
    """Small files pinned instead of the real ones, with no mirror and no pip until a test says."""
    random = np.random.default_rng(0)
    arrays = [
        random.integers(0, 256, (6, 28, 28), np.uint8),
        random.integers(0, 10, 6, np.uint8),
        random.integers(0, 256, (4, 28, 28), np.uint8),
        random.integers(0, 10, 4, np.uint8),
    ]
    fakes = {name: idx.encode(array) for name, array in zip(NAMES, arrays, strict=True)}
    pinned = {name: datasets.Pinned(len(data), digest(data)) for name, data in fakes.items()}
    monkeypatch.setattr(datasets, "MNIST", datasets.MNIST._replace(files=pinned))
    others = {name: datasets.Pinned(size, 64 * "0") for name, (size, _) in pinned.items()}
    fashion = datasets.FASHION_MNIST._replace(files=others)
    monkeypatch.setattr(datasets, "FASHION_MNIST", fashion)
    monkeypatch.setattr(MNIST, "mirrors", [])
    python('echo "ERROR: No matching distribution found" >&2; exit 1')
    return fakes
