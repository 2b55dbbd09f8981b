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
OTHER_PROCESSOR = "import platform; platform.machine = lambda: 'riscv64'\n"
"""Put before `WORKER`: no engine can be compiled there."""


@contextmanager
def started(
    script: str, *arguments: str, folder: Path, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a script, where this project is not on the path; give the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script, *arguments],
        cwd=folder,
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
