"""Bytes that flip in what a stage reads: it is made again or refused, and never used unnoticed."""

import random
import re
import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Injected, often
from tests.faults.rehearsal import Ended, Stages, content

WHERE = random.Random(0)  # noqa: S311
READ = {
    "data/train": "train gn",
    "data/test": "evaluate",
    "models": "evaluate",
    "checkpoints": "train gn",
}
"""Files that carry or have a digest, and a stage that reads them. DVC keeps that of all others."""


def flip(path: Path) -> bytes:
    """Flip a bit of a file, by chance of its header in every other one; return what it was."""
    before = path.read_bytes()
    changed = bytearray(before)
    end = len(before) if WHERE.random() < 0.5 else min(len(before), 1000)
    changed[WHERE.randrange(end)] ^= 1 << WHERE.randrange(8)
    path.write_bytes(changed)
    return before


def one_line(ended: Ended) -> bool:
    """Whether a stage ended with a line."""
    said = [line for line in ended.said.splitlines() if " trials on " not in line]
    return ended.status == 1 and len(said) == 1 and said[0].startswith("error: ")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("folder", ["data/train", "data/test", "models"])
def test_a_flipped_bit_is_refused(rehearsed: Stages, folder: str, injected: Injected) -> None:
    expected = content(rehearsed.project)
    files = sorted(path for path in (rehearsed.project / folder).rglob("*") if path.is_file())
    for _ in range(often(1, 25)):
        damaged = WHERE.choice(files)
        before = flip(damaged)
        with injected(f"flipped bit in {folder}") as fault:
            ended = rehearsed.run(READ[folder])
            assert one_line(ended), ended
            assert damaged.name in ended.said
            damaged.write_bytes(before)
            assert content(rehearsed.project) == expected
            fault.refused()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap"])
def test_a_damaged_checkpoint_is_computed_again(
    rehearsed: Stages, damage: str, injected: Injected
) -> None:
    expected = content(rehearsed.project)
    kept = rehearsed.project / "checkpoints/gn"
    for _ in range(often(1, 25 if damage == "flip" else 3)):
        killed = rehearsed.run("train gn", rehearsed.writes["train gn"] // 2)
        assert killed.status == -signal.SIGKILL
        one, other = sorted(kept.rglob("seed*"))
        if damage == "flip":
            flip(one)
        else:
            whole = one.read_bytes()
            found = {"truncate": whole[:-1], "empty": b"", "swap": other.read_bytes()}
            one.write_bytes(found[damage])
        with injected(f"checkpoint: {damage}") as fault:
            ended = rehearsed.run("train gn")
            assert ended.status == 0, ended.said
            (said,) = (line for line in ended.said.splitlines() if " trials on " not in line)
            assert re.search(rf"{one.name}: .*; goes on from epoch 0$", said)
            assert content(rehearsed.project) == expected
            fault.healed()
