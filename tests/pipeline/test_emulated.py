"""The pipeline on another processor than this machine's: the same lock, byte for byte.

One variant is trained there: what others come to on any processor is in test_arithmetic.py, and a
stage that trains takes a minute to import what it needs.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clusters import TOGETHER, started
from tests.emulated import pipeline

SCRIPT = Path(__file__).parents[1] / "emulated/x86-64"
# NumPy asks the processor as PyTorch does, whose import alone takes half a minute here.
FEATURES = "import numpy; print(numpy._core._multiarray_umath.__cpu_features__)"


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 (qemu-user) is missing")
def test_a_machine_with_avx2_and_no_avx512_gives_the_same_lock(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "QEMU_CPU": "Haswell"}
    seen = subprocess.run(
        [SCRIPT, tmp_path, "-c", FEATURES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "'AVX2': True" in seen
    assert "'AVX512F': False" in seen
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
    native = pipeline.run_native(tmp_path)
    # One worker imports once what the processes of two stages would each import in a minute.
    python = tmp_path / ".venv/bin/python"
    with started(TOGETHER, folder=tmp_path, python=python) as (_, emulated_scheduler):
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", emulated_scheduler)
        emulated = pipeline.run_emulated(tmp_path, ["train_bn_l1"])
    assert pipeline.outputs(emulated) == pipeline.outputs(native)
    assert (emulated / "dvc.lock").read_bytes() == (native / "dvc.lock").read_bytes()
