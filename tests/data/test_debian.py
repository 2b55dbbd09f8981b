"""Debian's package as a source: with an `apt-get` of the tests', and with the real one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets import FashionMNIST

from normlab.data import datasets, idx, own, sources
from normlab.data.datasets import FASHION_MNIST
from normlab.errors import InputError
from tests.data.conftest import NAMES, TRAIN_IMAGES, digest, packed

LABEL = "Debian package dataset-fashion-mnist"
DOWNLOADING = f"{LABEL}: downloading 31 MB with apt-get"
UNPACK = 'test "$1 $2 $3" = "-x some.deb unpacked" || exit 9; '

Tools = Callable[..., None]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Put shell scripts in the place of all programs."""
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**scripts: str) -> None:
        for name, script in scripts.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
            path.chmod(0o755)

    return put


def fetch(dataset: datasets.Dataset, folder: Path) -> tuple[dict[str, bytes] | str, list[str]]:
    """Return the files, or why there are none, and what was said before."""
    lines: list[str] = []
    try:
        return sources.fetch(dataset, folder / "incoming", (), lines.append), lines
    except InputError as error:
        return str(error), lines


def test_files_are_taken_from_the_package(tmp_path: Path, tools: Tools) -> None:
    contents = {name: name.encode() for name in NAMES}
    pins = {name: datasets.Pinned(len(data), digest(data)) for name, data in contents.items()}
    inside = tmp_path / "package" / "usr/share/datasets/fashion-mnist"
    inside.mkdir(parents=True)
    for name, data in contents.items():
        (inside / f"{name}.gz").write_bytes(packed(data))
    tools(
        apt_get='test "$1 $2" = "download dataset-fashion-mnist" && touch some.deb',
        dpkg_deb=f"{UNPACK}cp -r {tmp_path}/package unpacked",
    )
    found = fetch(FASHION_MNIST._replace(files=pins), tmp_path)
    assert found == (contents, [DOWNLOADING])
    assert not list(tmp_path.glob(".incoming*"))

    (inside / f"{TRAIN_IMAGES}.gz").write_bytes(packed(b"other"))
    said, lines = fetch(FASHION_MNIST._replace(files=pins), tmp_path)
    assert isinstance(said, str)
    assert said.startswith(f"no source has {TRAIN_IMAGES}: ")
    assert lines[1].startswith(f"{LABEL}: {TRAIN_IMAGES}: got 5 bytes, expected")


@pytest.mark.parametrize(
    ("scripts", "line"),
    [
        ({}, "apt-get is not here"),
        ({"apt_get": ""}, "dpkg-deb is not here"),
        (
            {"apt_get": "echo 'W: x' >&2; echo 'E: Unable\n to locate' >&2; exit 100"},
            "apt-get failed (E: Unable to locate)",
        ),
        ({"apt_get": ""}, "apt-get failed ()"),
        ({"apt_get": "touch some.deb"}, "dpkg-deb failed (broken)"),
    ],
    ids=["neither", "one", "unknown", "nothing", "broken"],
)
def test_where_it_cannot_be_had_the_source_is_left_with_a_line(
    tmp_path: Path, tools: Tools, scripts: dict[str, str], line: str
) -> None:
    unpacks = {} if "not here" in line else {"dpkg_deb": "echo broken >&2; exit 2"}
    tools(**scripts, **unpacks)
    said, lines = fetch(FASHION_MNIST, tmp_path)
    assert isinstance(said, str)
    assert said.startswith(f"no source has {', '.join(NAMES)}: place what is missing")
    assert lines == [DOWNLOADING] * (not line.endswith("not here")) + [f"{LABEL}: {line}"]


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_the_real_package_has_the_pinned_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [])
    found, lines = fetch(FASHION_MNIST, tmp_path)
    if isinstance(found, str):
        pytest.skip(f"Debian's archive has it not for this machine: {lines[-1]}")
    assert lines == [DOWNLOADING]
    images, labels = (idx.decode(found[name]) for name in datasets.SPLITS["train"])
    assert own.spread(images) == (FASHION_MNIST.mean, FASHION_MNIST.std)
    assert labels.max() + 1 == FASHION_MNIST.classes
    assert not list(tmp_path.iterdir())
