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
    "resampled_variance": "71/31250000 376631/200000000000 93179/62500000000",
    "pigeonhole_bootstrap": "0x1.e4f765fd8adacp-9",
    "pigeonhole_interval": "-0.001514712 0.008914712",
    "calibration_error": "0x1.2b370719ff8d3p-3",
    "paired": "0x1.5a07b352a84cdp-11",
    "paired_interval": "-0.000943690 0.002120000",
    "sign_flips": "0x1.6200000000000p-2 0x1.c61639e9c6164p-3",
    "trend": "0x1.3f8ef63238e0ap-1",
    "fitted_change": "-0x1.90b4b12e66f6dp-10 -0x1.151fa7fe98849p-10 -0x1.6b41b627ac524p-10",
    "holm": "0x1.6200000000000p-1 0x1.5490ab6f5490bp-1 0x1.6200000000000p-1",
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
    libraries = "import numpy, pandas, scipy, statsmodels"
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", libraries], capture_output=True).returncode == 0:
            _, results = run(python)
            assert results == GOLDEN
            return
    pytest.skip(f"no {name} found that has NumPy, SciPy, pandas and statsmodels")
