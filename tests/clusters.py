"""Schedulers and workers elsewhere, started by hand, each in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEDULER = """
import asyncio, sys
from distributed import Scheduler
async def main():
    async with Scheduler(host='127.0.0.1', port=0, dashboard_address='127.0.0.1:0') as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
"""
WORKER = """
import asyncio, sys
from distributed import Worker
async def main():
    worker = Worker(sys.argv[1], nthreads=1, dashboard_address='127.0.0.1:0')
    async with worker:
        print(worker.address, flush=True)
        await worker.finished()
asyncio.run(main())
"""
TOGETHER = """
import asyncio, sys
import dask
from distributed import Scheduler, Worker
dask.config.set({
    "temporary-directory": ".",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "1m",
})
async def main():
    async with Scheduler(host='127.0.0.1', port=0, dashboard_address=':0') as scheduler:
        async with Worker(scheduler.address, nthreads=1):
            print(scheduler.address, flush=True)
            await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
"""A scheduler and a worker in one process, which ends with the one that tests if not before."""
OTHER_PROCESSOR = "import platform; platform.machine = lambda: 'riscv64'\n"
"""Put before `WORKER`: no engine can be compiled there."""


@contextmanager
def started(
    script: str,
    *arguments: str,
    folder: Path,
    python: str | Path = sys.executable,
    **options: Any,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a script, where this project is not on the path; give the process and its address."""
    process = subprocess.Popen(
        [python, "-P", "-c", script, *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **options,
    )
    assert process.stdout
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
