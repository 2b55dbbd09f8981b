"""Another user of the same machine: reaches neither our workers nor our scheduler."""

import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from normlab.errors import InputError
from normlab.training import cluster
from normlab.training.chains import run_chains
from tests.clusters import SCHEDULER, WORKER, started
from tests.faults.conftest import Injected

NOBODY = 65534
# Dask's own client, as far as another user gets with what is installed.
STRANGER = """
import asyncio, os, sys
from distributed import Security
from distributed.comm import connect
keys = Security.temporary()
async def call(address, security):
    comm = await connect(address, timeout=2, **security.get_connection_args("client"))
    await comm.write({"op": "identity"})
    return await comm.read()
def call_all():
    for address in sys.argv[2:]:
        plain = address.replace("tls://", "tcp://")
        for there, security in ((plain, Security()), (address, keys)):
            try:
                asyncio.run(asyncio.wait_for(call(there, security), 5))
            except Exception as error:
                print(repr(error), file=sys.stderr)
                yield "refused"
            else:
                yield "reached"
if int(sys.argv[1]):
    # All that it imports as it calls is imported by now: `nobody` may not be able to.
    list(call_all())
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
print(*call_all())
"""


def try_as_stranger(addresses: list[str], folder: Path) -> set[str]:
    """Call each in the clear and with keys of one's own, as `nobody` where this user may be it."""
    user = NOBODY if os.getuid() == 0 else 0
    arguments = [sys.executable, "-P", "-c", STRANGER, str(user), *addresses]
    ran = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=True)
    said = ran.stdout.split()
    assert len(said) == 2 * len(addresses), ran
    return set(said)


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Addresses and ports where these processes listen to the network."""
    found = [c for pid in pids for c in psutil.Process(pid).net_connections("inet")]
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def own() -> Iterator[Client]:
    cluster.start_forkserver("normlab.training.trials")
    with cluster.connect(chains=2) as client:
        yield client


def test_a_second_user_reaches_neither_scheduler_nor_workers(
    own: Client, tmp_path: Path, injected: Injected
) -> None:
    workers = own.scheduler_info()["workers"]
    addresses = [own.scheduler.address, *workers, *(w["nanny"] for w in workers.values())]
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
    with started(SCHEDULER, folder=tmp_path) as (_, open_to_all):
        assert "reached" in try_as_stranger([open_to_all], tmp_path)
    with injected("call by another user") as fault:
        assert try_as_stranger(addresses, tmp_path) == {"refused"}
        fault.healed()
    # That what was refused is what answers those who have the keys:
    assert len(own.run(os.getpid)) == len(workers)


def test_nothing_listens_beyond_the_loopback_and_there_are_no_pages(own: Client) -> None:
    ours = listening([os.getpid(), *own.run(os.getpid).values()])
    assert ours
    assert {ip for ip, _ in ours} == {"127.0.0.1"}
    pages = own.cluster.scheduler.http_server.port
    for path in ("status", "info/main/workers.html", "json/counts.json", "metrics", "health"):
        got = subprocess.run(
            ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", f"127.0.0.1:{pages}/{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert got.stdout == "404", path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """What docs/cluster.md tells a person to make: an authority, and a certificate for all."""
    for line in (
        "openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=authority -keyout ca.key "
        "-out ca.pem",
        "openssl req -newkey ed25519 -nodes -subj /CN=normlab -keyout key.pem -out request.pem",
        "openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 "
        "-out cert.pem",
    ):
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    names = {"CA_FILE": "ca.pem"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        names |= {f"{role}__KEY": "key.pem", f"{role}__CERT": "cert.pem"}
    found = {f"DASK_DISTRIBUTED__COMM__TLS__{k}": str(tmp_path / v) for k, v in names.items()}
    return {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true", **found}


def as_dask_reads(environment: dict[str, str]) -> dict[str, str]:
    """What Dask's configuration has by these variables, which it reads as it is imported."""
    dotted = {k.removeprefix("DASK_").replace("__", "."): v for k, v in environment.items()}
    return {name.replace("_", "-").lower(): value for name, value in dotted.items()}


def test_a_scheduler_elsewhere_takes_dask_s_own_tls_configuration(
    keys: dict[str, str], tmp_path: Path, injected: Injected
) -> None:
    environment = {**os.environ, **keys}
    script = SCHEDULER.replace("Scheduler(", "Scheduler(protocol='tls://', ")
    with (
        started(script, folder=tmp_path, env=environment) as (_, scheduler),
        started(WORKER, scheduler, folder=tmp_path, env=environment) as (_, worker),
    ):
        assert (scheduler[:6], worker[:6]) == ("tls://", "tls://")
        with (
            dask.config.set({"scheduler-address": scheduler} | as_dask_reads(keys)),
            cluster.connect(1) as client,
        ):
            assert list(run_chains(client, [(operator.add, 1, 2)], 1)) == [(0, 2), (0, 3)]
        with injected("client without a certificate") as fault:
            refused = f"^scheduler: got {scheduler}, which does not answer "
            with (
                dask.config.set({"scheduler-address": scheduler}),
                pytest.raises(InputError, match=refused),
                cluster.connect(1),
            ):
                pass
            assert try_as_stranger([scheduler, worker], tmp_path) == {"refused"}
            fault.refused()
