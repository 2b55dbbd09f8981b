"""The mirrors, played by a server on this machine."""

import hashlib
import pkgutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import MNIST

from normlab.data import datasets, sources
from tests.data.conftest import (
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    digest,
    expected,
    fetch,
    fetch_error,
    flipped,
    packed,
)

GATEWAY_PAGE = b"<html>Please log in to the network.</html>"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_the_mirrors_of_the_record_have_all_its_files() -> None:
    assert datasets.MNIST.mirrors
    hosts = pkgutil.resolve_name(datasets.MNIST.mirrors)
    assert [file for file, _ in hosts.resources] == [f"{name}.gz" for name in NAMES]
    assert all(url.startswith("http") and url.endswith("/") for url in hosts.mirrors)


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

    def trickling(self, body: bytes, headers: bool) -> Answer:
        """Send a byte at a time, for ever: the body, or already the headers."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if not headers:
                self.part(b"", 10_000)(handler)
            with suppress(OSError):
                for byte in body * 1000:
                    handler.wfile.write(bytes([byte]))
                    handler.wfile.flush()
                    if self.closing.wait(0.02):
                        break

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
    tmp_path: Path, incoming: Path, files: dict[str, bytes], server: Server
) -> None:
    in_place = tmp_path / "in_place"
    in_place.mkdir()
    (incoming / TRAIN_IMAGES).write_bytes(files[TRAIN_IMAGES])
    (in_place / TEST_IMAGES).write_bytes(b"altered")
    (in_place / TEST_LABELS).write_bytes(files[TEST_LABELS])
    got, lines = fetch(incoming, in_place)
    assert got == files
    assert lines == [f"{in_place}: {TEST_IMAGES}: got 7 bytes{expected(files[TEST_IMAGES])}"]
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


@pytest.mark.parametrize("headers", [False, True])
def test_mirror_that_trickles_is_left(
    incoming: Path, server: Server, monkeypatch: pytest.MonkeyPatch, headers: bool
) -> None:
    monkeypatch.setattr(sources, "SLOW_SECONDS", 0.5)
    server.answers[f"/{TRAIN_IMAGES}.gz"] = [server.trickling(b"HTTP", headers)]
    _, lines = fetch_error(incoming)
    assert lines[0] == (
        f"{server.url}: {TRAIN_IMAGES}.gz: unreachable (too little came within 0.5 s)"
    )
    assert server.asked == [f"/{TRAIN_IMAGES}.gz"]


def test_mirror_that_is_slow_and_steady_is_heard_out(
    incoming: Path, files: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SLOW_SECONDS", 2)
    monkeypatch.setattr(sources, "CHUNK", 100)
    data = packed(files[TRAIN_IMAGES])

    def slow(handler: BaseHTTPRequestHandler) -> None:
        server.part(b"", len(data))(handler)
        pieces = [data[i : i + 400] for i in range(0, len(data), 400)]
        assert len(pieces) > 7
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            server.closing.wait(0.3)

    server.answers[f"/{TRAIN_IMAGES}.gz"] = [slow]
    assert fetch(incoming) == (files, [])


@pytest.mark.usefixtures("server")
def test_name_server_that_says_nothing_is_left(
    incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = threading.Event()
    monkeypatch.setattr(sources, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: closing.wait(60))
    _, lines = fetch_error(incoming)
    closing.set()
    assert lines[0].endswith(f"{TRAIN_IMAGES}.gz: unreachable (too little came within 0.3 s)")


def test_mirror_with_another_file_is_refused(
    incoming: Path, files: dict[str, bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers[f"/{TEST_LABELS}.gz"] = [server.whole(GATEWAY_PAGE)]
    _, lines = fetch_error(incoming)
    right = md5(packed(files[TEST_LABELS]))
    assert lines[0].startswith(f"{server.url}: MD5 hash of downloaded file ({TEST_LABELS}.gz) ")
    assert lines[0].endswith(f"expected md5:{right} but got {md5(GATEWAY_PAGE)}")

    # Were the list of MD5s itself replaced, the pinned SHA-256 would still hold.
    altered = flipped(files[TEST_LABELS])
    server.answers[f"/{TEST_LABELS}.gz"] = [server.whole(packed(altered))]
    changed = (f"{TEST_LABELS}.gz", md5(packed(altered)))
    monkeypatch.setattr(MNIST, "resources", [*MNIST.resources[:3], changed])
    error, lines = fetch_error(incoming)
    assert lines[0] == (
        f"{server.url}: {TEST_LABELS}: got SHA-256 {digest(altered)}{expected(files[TEST_LABELS])}"
    )
    assert error.startswith(f"no source has {TEST_LABELS}: ")
