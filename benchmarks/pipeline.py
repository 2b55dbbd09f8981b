"""What a run of the pipeline costs beside training, and how time and memory grow with its budget.

All of it happens in a fresh clone, by the commands that users have.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from tqdm import tqdm

from normlab.network.networks import VARIANTS
from stages import train

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "PYTHONUNBUFFERED": "1",  # so that a stage is seen when it begins
}
REPETITIONS = 3
NOTHING: dict[str, Any] = {"epochs": 1, "train_size": 128, "val_size": 128}
BUDGET: dict[str, Any] = {"train_size": 10_000, "epochs": 2, "seeds": [0, 1]}
GROWTH: dict[str, list[Any]] = {
    "train_size": [20_000, 40_000],
    "epochs": [4, 8],
    "seeds": [list(range(4)), list(range(8))],
}


def report(folder: Path) -> list[str]:
    """Clone the project into `folder`, which must be empty, and measure there.

    Raises
    ------
    subprocess.CalledProcessError
        If a command fails.
    """
    subprocess.run(["git", "clone", "--quiet", ".", folder], check=True)  # noqa: S603, S607
    return [*overhead(folder), "", *growth(folder)]


def overhead(clone: Path) -> list[str]:
    """Seconds of every stage of a full run, and which share of them is not training.

    What a train stage takes with next to nothing to train is its start-up, and not training. The
    figures of a clone are drawn already if its results are the committed ones, so that stage runs
    once more.
    """
    full = stages(clone)
    full["plot"] = stages(clone, "--force", "--single-item", "plot")["plot"]
    idle = [sum(stages(clone).values()) for _ in range(REPETITIONS)]
    set_params(clone, NOTHING)
    empty = stages(clone)
    lines = ["| | seconds |", "|---|---|"]
    for name, seconds in full.items():
        startup = f", of them start-up {empty[name]:.1f}" if name.startswith("train_") else ""
        lines.append(f"| {name} | {seconds:.1f}{startup} |")
    whole = sum(full.values())
    training = sum(full[name] - empty[name] for name in full if name.startswith("train_"))
    lines += [
        f"| all, by `dvc repro` in a fresh clone | {whole:.1f} |",
        f"| share that is not training | {1 - training / whole:.0%} |",
        f"| `dvc repro` with nothing to do | {statistics.median(idle):.2f} |",
    ]
    for name in ("download", "train", "evaluate", "plot"):
        took = []
        for _ in range(REPETITIONS):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import stages.{name}"], check=True)  # noqa: S603
            took.append(time.perf_counter() - begun)
        lines.append(f"| import stages.{name} | {statistics.median(took):.2f} |")
    return lines


def stages(clone: Path, *options: str) -> dict[str, float]:
    """Seconds of every stage that `dvc repro` runs; what comes before the first is `dvc`."""
    seconds, name, begun = {}, "dvc", time.perf_counter()
    with subprocess.Popen(  # noqa: S603  our own words
        [BIN / "dvc", "repro", *options],
        cwd=clone,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Running stage '"):
                now = time.perf_counter()
                seconds[name] = now - begun
                name, begun = line.split("'")[1], now
    seconds[name] = time.perf_counter() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return seconds


def growth(clone: Path) -> list[str]:
    """Seconds and peak memory of a train stage, as each part of its budget grows."""
    lines = ["| training images | epochs | seeds | seconds | peak MiB |", "|---|---|---|---|---|"]
    budgets = [BUDGET, *(BUDGET | {key: v} for key, values in GROWTH.items() for v in values)]
    for budget in tqdm(budgets, desc="growth"):
        set_params(clone, budget)
        command = [sys.executable, "-m", "stages", "train", list(VARIANTS)[1]]
        begun, peak = time.perf_counter(), 0.0
        with psutil.Popen(
            command, cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                peak = max(peak, memory(process))
                time.sleep(0.1)
        seconds = time.perf_counter() - begun
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        sizes = f"{budget['train_size']:,} | {budget['epochs']} | {len(budget['seeds'])}"
        lines.append(f"| {sizes} | {seconds:.1f} | {peak / 2**20:,.0f} |")
    return lines


def memory(process: psutil.Process) -> float:
    """Bytes that a process and its descendants hold; what they share is counted once."""
    held = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            held += one.memory_full_info().pss
        except psutil.Error:  # it has ended meanwhile
            continue
    return held


def set_params(clone: Path, changes: dict[str, Any]) -> None:
    """Give the clone the parameters of this folder, some of them changed."""
    yaml = YAML()
    values = yaml.load(train.PARAMS.read_text())
    with (clone / train.PARAMS).open("w") as stream:
        yaml.dump(values | changes, stream)
