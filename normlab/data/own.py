"""A folder of one's own as a data set: four IDX files by the names that MNIST's have.

Their hashes are recorded in the folder when they are first used, in the format of `sha256sum`, and
what has changed since is refused.
"""

import gzip
import hashlib
import math
import re
import zlib
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab import files
from normlab.data import datasets, idx
from normlab.data.datasets import SPLITS, Dataset, Pinned
from normlab.errors import InputError

SUMS = "SHA256SUMS"
SIDES = 18, 128
"""The least that leaves the network a pixel at its end, and the most for which a batch fits a usual
machine's memory."""
LARGEST = 2**31
"""Bytes of an uncompressed file."""


class Split(NamedTuple):
    """Images, (n, s, s) uint8, and their labels, (n,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def read(folder: Path) -> tuple[Dataset, dict[str, bytes]]:
    """Read and check a folder's four files; record their hashes where there is no record of them.

    Parameters
    ----------
    folder : Path
        Has a file `X` or `X.gz` for each `X` in `datasets.SPLITS`, and maybe `SUMS`.

    Returns
    -------
    dataset : Dataset
        Its record: named as the folder, with as many classes as the largest training label says,
        mean and standard deviation of the training images rounded to four decimals.
    files : dict of str to bytes
        The uncompressed files by name.

    Raises
    ------
    InputError
        If a file is missing, there twice, unreadable, not IDX, has another shape or values than are
        allowed, or is not the one that was recorded: which file, got, allowed.
    """
    if not folder.is_dir():
        known = ", ".join(datasets.known())
        raise InputError(
            f"dataset: got {folder}, which is not a folder, allowed: {known}, or the path of a "
            "folder with four IDX files"
        )
    paths = {name: _path(folder, name) for names in SPLITS.values() for name in names}
    stored = {name: _stored(path) for name, path in paths.items()}
    recorded = _recorded(folder / SUMS)
    sums = {path.name: hashlib.sha256(stored[name]).hexdigest() for name, path in paths.items()}
    for file, got in sums.items():
        if recorded.get(file, got) != got:
            raise InputError(
                f"{folder / file}: got SHA-256 {got}, allowed: {recorded[file]}, recorded when it "
                f"was first used; to take the new file, delete its line in {folder / SUMS}"
            )
    contents = {name: _unpacked(paths[name], data) for name, data in stored.items()}
    train, test = (_split(paths, contents, split) for split in ("train", "test"))
    _refuse_strange(train, test, paths)
    if sums.keys() - recorded.keys():
        lines = "".join(f"{digest}  {file}\n" for file, digest in (recorded | sums).items())
        files.write(folder / SUMS, lines.encode())
    mean, std = spread(train.images)
    record = Dataset(
        name=folder.resolve().name,
        noun="image",
        names=tuple(map(str, range(int(train.labels.max()) + 1))),
        side=train.images.shape[1],
        mean=mean,
        std=std,
        credit="",
        splits=SPLITS,
        files={
            name: Pinned(len(data), hashlib.sha256(data).hexdigest())
            for name, data in contents.items()
        },
    )
    return record, contents


def spread(images: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of pixels, as fractions of 255, rounded to four decimals.

    Computed in whole numbers and rounded once, so the same on every machine.
    """
    # In pieces, since it counts in eight bytes what is given in one.
    pieces = (images[start : start + 1000] for start in range(0, len(images), 1000))
    counts = np.sum([np.bincount(piece.ravel(), minlength=256) for piece in pieces], 0).tolist()
    total = images.size
    mean = Fraction(sum(value * count for value, count in enumerate(counts)), 255 * total)
    squares = Fraction(sum(value**2 * count for value, count in enumerate(counts)), 255**2 * total)
    return round(float(mean), 4), round(math.sqrt(squares - mean**2), 4)


def _path(folder: Path, name: str) -> Path:
    there = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
    if len(there) != 1:
        got = " and ".join(path.name for path in there) or f"no {name}"
        raise InputError(f"{folder}: got {got}, allowed: {name} or {name}.gz")
    return there[0]


def _stored(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _bounded(path, data)


def _unpacked(path: Path, stored: bytes) -> bytes:
    if path.suffix != ".gz":
        return stored
    try:
        with gzip.GzipFile(fileobj=BytesIO(stored)) as stream:
            return _bounded(path, stream.read(LARGEST + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _bounded(path: Path, data: bytes) -> bytes:
    if len(data) > LARGEST:
        raise InputError(f"{path}: got more bytes, allowed: at most {LARGEST:,}")
    return data


def _recorded(sums: Path) -> dict[str, str]:
    """Read the hashes that are recorded, by file; none where there is no record."""
    if not sums.exists():
        return {}
    found = {}
    for number, line in enumerate(files.read_text(sums).splitlines(), start=1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not entry:
            raise InputError(
                f"{sums}, line {number}: got {line[:80]!r}, allowed: a SHA-256, two spaces, a name"
            )
        found[entry[2]] = entry[1]
    return found


def _split(paths: dict[str, Path], contents: dict[str, bytes], split: str) -> Split:
    arrays = []
    for name, dimensions in zip(SPLITS[split], (3, 1), strict=True):
        try:
            array = idx.decode(contents[name])
        except InputError as error:
            raise InputError(f"{paths[name]}: {error}") from None
        if array.ndim != dimensions:
            raise InputError(f"{paths[name]}: got {array.ndim} dimensions, allowed: {dimensions}")
        arrays.append(array)
    images, labels = arrays
    if len(images) != len(labels):
        raise InputError(
            f"{paths[SPLITS[split][1]]}: got {len(labels)} labels, allowed: {len(images)}, one for "
            "each image"
        )
    return Split(images, labels)


def _refuse_strange(train: Split, test: Split, paths: dict[str, Path]) -> None:
    """Refuse what the network cannot learn from."""
    train_images, train_labels = (paths[name] for name in SPLITS["train"])
    test_images, test_labels = (paths[name] for name in SPLITS["test"])
    _, height, width = train.images.shape
    least, most = SIDES
    if height != width or not least <= height <= most:
        raise InputError(
            f"{train_images}: got images of {height} by {width} pixels, allowed: squares with a "
            f"side from {least} to {most}"
        )
    if test.images.shape[1:] != (height, width):
        other = " by ".join(map(str, test.images.shape[1:]))
        raise InputError(
            f"{test_images}: got images of {other} pixels, allowed: {height} by {width}, as those "
            "for training"
        )
    for path, split, fewest in ((train_images, train, 2), (test_images, test, 1)):
        if len(split.images) < fewest:
            raise InputError(f"{path}: got {len(split.images)} images, allowed: {fewest} or more")
    classes = int(train.labels.max()) + 1
    if classes < 2:
        raise InputError(f"{train_labels}: got no label but 0, allowed: two classes or more")
    if test.labels.max() >= classes:
        raise InputError(
            f"{test_labels}: got the label {test.labels.max()}, allowed: 0 to {classes - 1}, as "
            "those for training"
        )
    if spread(train.images)[1] == 0:
        raise InputError(f"{train_images}: got pixels that are all alike, allowed: pictures")
