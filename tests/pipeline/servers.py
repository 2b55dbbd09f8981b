"""Places that DVC's remotes can be, started on the loopback: SSH, S3, a web server."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "t",
    "AWS_SECRET_ACCESS_KEY": "t",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server that is starting answers."""
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the block."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ssh(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve `folder/store` by SSH; give its address and the key that is let in."""
    if SSHD is None:
        pytest.skip("no sshd: install openssh-server")
    for name in ("host", "user"):
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make_key, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    options = [
        f"HostKey={folder}/host",
        f"AuthorizedKeysFile={folder}/user.pub",
        "ListenAddress=127.0.0.1",
        "PidFile=none",
        "StrictModes=no",
        "Subsystem=sftp internal-sftp",
        "UsePAM=no",
    ]
    port = free_port()
    command = [SSHD, "-D", "-q", "-f", "/dev/null", "-p", str(port)]
    command += [word for option in options for word in ("-o", option)]
    with ended(subprocess.Popen(command)) as process:
        wait_for(port, process)
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}/store", folder / "user"


@contextmanager
def s3() -> Iterator[str]:
    """Serve a bucket, `bucket`, as S3 does; give the service's address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"))  # noqa: S310
        yield address
    finally:
        server.stop()


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """Serve a folder's files, read only."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen([*command, "--directory", str(folder)], stderr=subprocess.DEVNULL)
    with ended(process):
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
