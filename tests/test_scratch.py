"""What is being written, and what killed processes left of it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from normlab import scratch


def of_the_dead() -> int:
    """The number of a process that is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


def test_several_may_clear_away_at_once(tmp_path: Path) -> None:
    cleared = tmp_path / "table.csv"
    gone = of_the_dead()
    for _ in range(20):
        # Leading zeros make many names of one number.
        for count in range(50):
            (tmp_path / f".{cleared.name}.scratch-{gone:0{count + 8}d}").touch()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(scratch.clear, [cleared] * 8))
        assert not list(tmp_path.iterdir())
