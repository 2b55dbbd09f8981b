"""The statistics have the same bits on any processor, Python, NumPy and SciPy found here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GOLDEN = {
    "mean": "0x1.fbb83cf2cf95dp-1 0x1.b5d0826037a65p-10",
    "mean_interval": "0.990445261 0.992834739",
    "mean_squares": "137/20000 9139/1249375 303863/39980000",
    "accuracy": "0x1.fc1bda5119ce0p-1 0x1.e524bbe41ebf0p-10",
    "accuracy_interval": "0.990102083 0.994697917",
    "difference": "0x1.e4f765fd8adacp-9",
    "difference_interval": "0.000144083 0.007255917",
    "calibration_error": "0x1.2b370719ff8d3p-3",
    "contrast": "0x1.40908dbeb8800p-12 0x1.1266938316fffp-19 0x1.4d2df5c611367p-21",
    "contrast_interval": "-0.001688713 0.002300141",
    "welch": "0.597073618 0.237785914",
    "seeds_needed": "110",
    "permutations": "0x1.522397f50c522p-3 0x1.6cca2db61bb06p-3",
    "trend": "0x1.72599ed7c6fbdp-1",
    "epochs_to_reach": "0x1.2492492492591p+1",
    "mean_log": "-1.058614965",
}

ROOT = Path(__file__).parents[2]
# From the oldest that is allowed on, without this one.
PYTHONS = [f"python3.{n}" for n in range(11, 16) if sys.version_info[:2] != (3, n)]


def run(*command: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    """Processor features that NumPy chose its code by, and the results."""
    done = subprocess.run(
        [*command, "-m", "tests.evidence.golden"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    return printed["simd"], printed["results"]


def test_on_this_processor() -> None:
    _, results = run(sys.executable)
    assert results == GOLDEN


def test_without_any_feature_of_the_processor() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this processor has no feature that NumPy could do without")
    simd, results = run(
        sys.executable, NPY_DISABLE_CPU_FEATURES=" ".join(found), OPENBLAS_CORETYPE="Prescott"
    )
    assert simd == []
    assert results == GOLDEN


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed")
def test_on_an_emulated_processor_without_avx512() -> None:
    simd, results = run("qemu-x86_64", "-cpu", "Haswell", sys.executable)
    assert not [name for name in simd if "AVX512" in name or name == "X86_V4"]
    assert results == GOLDEN


@pytest.mark.parametrize("name", PYTHONS)
def test_under_another_python(name: str) -> None:
    """Of those on the path and those that pyenv holds, the first that has the libraries."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(name), *map(str, sorted(versions.glob(f"*/bin/{name}")))]
    libraries = "import numpy, pandas, scipy"
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", libraries], capture_output=True).returncode == 0:
            _, results = run(python)
            assert results == GOLDEN
            return
    pytest.skip(f"no {name} found that has NumPy, SciPy and pandas")
