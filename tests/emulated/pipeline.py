"""The pipeline with a small budget, by a native Python and by an emulated one, and what differs.

    python -m tests.emulated.pipeline FOLDER

FOLDER/.venv is an environment whose Python is emulated, as the scripts beside this file make it.
The two runs stay in FOLDER/native and FOLDER/emulated.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from tests.pipeline.copies import TRAIN, copy, run, set_params, stages_run

BUDGET = {"seeds": "[0]", "epochs": "1", "val_size": "100", "train_size": "300"}
# An emulated processor scores 50 to 100 images a second, and is slow to hash what it reads.
IMAGES = {"train": 400, "test": 300}
# Fonts and rasterizers are not ours: another architecture may draw the same picture otherwise.
DRAWN = "reports/figures"

MACHINE = """
import platform
import numpy
import torch
features = numpy._core._multiarray_umath.__cpu_features__
seen = " ".join(sorted(name for name, there in features.items() if there))
print(f"{platform.machine()}, Python {platform.python_version()}")
print(f"NumPy sees {seen}")
print(f"PyTorch uses {torch.backends.cpu.get_cpu_capability()}")
"""


def run_native(folder: Path) -> Path:
    """Run a copy of the project in `folder`; leave another there that has its data alone."""
    native, emulated = folder / "native", folder / "emulated"
    for project in (native, emulated):
        shutil.rmtree(project, ignore_errors=True)
    native.mkdir()
    copy(native, IMAGES)
    set_params(native / "params.yaml", BUDGET)
    run(native, "dvc", "repro", "download")
    shutil.copytree(native, emulated, symlinks=True)
    repro(native, TRAIN)
    return native


def run_emulated(folder: Path, trained: Sequence[str] = TRAIN) -> Path:
    """Run the other copy by the emulated Python.

    It starts from the native one's lock without its outputs and its cache: so it has all to
    compute, and keeps the order of the lock's stages, which is DVC's whim in a new one. Of the
    stages that train, it is given the outputs of all but the `trained`.
    """
    native, emulated = folder / "native", folder / "emulated"
    shutil.copy(native / "dvc.lock", emulated)
    (emulated / "reports/history").mkdir(parents=True)
    for stage in {*TRAIN} - {*trained}:
        variant = stage.removeprefix("train_")
        shutil.copytree(native / "models" / variant, emulated / "models" / variant)
        shutil.copy(native / f"reports/history/{variant}.csv", emulated / "reports/history")
        run(emulated, "dvc", "commit", "--force", stage)
    (emulated / ".venv").unlink()
    (emulated / ".venv").symlink_to(folder.resolve() / ".venv")
    repro(emulated, trained)
    return emulated


def repro(project: Path, trained: Sequence[str]) -> None:
    """Run all stages but `download`; of those that train, these have to."""
    started = time.monotonic()
    ran = stages_run(run(project, "dvc", "repro"))
    assert sorted(ran) == sorted([*trained, "evaluate", "plot"])
    print(f"{project.name}: {time.monotonic() - started:.0f} s", flush=True)


def outputs(project: Path) -> dict[str, str]:
    """Read the MD5 of every output from a project's lock."""
    stages = YAML(typ="safe").load(project / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def main(folder: Path) -> int:
    """Say what the emulated Python sees, run both and print a line per output."""
    print(run(folder, "python", "-c", MACHINE).stdout.strip(), flush=True)
    native, emulated = outputs(run_native(folder)), outputs(run_emulated(folder))
    for path, md5 in native.items():
        print(f"{path}: {'the same' if emulated[path] == md5 else 'differs'}")
    return int(any(emulated[path] != md5 for path, md5 in native.items() if path != DRAWN))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
