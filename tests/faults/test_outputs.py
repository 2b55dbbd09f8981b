"""Bits that flip in what stages have written: `dvc repro` notices, and all is as it was."""

import random
from pathlib import Path

import pytest

from tests.faults.conftest import Injected, in_torture
from tests.faults.test_damage import flip
from tests.pipeline.copies import git, run, run_from_nothing

WHERE = random.Random(0)  # noqa: S311
# A flipped bit in data is refused (test_damage.py), and the page is of what it reads.
WRITTEN = ("data/misclassified.safetensors", "models", "reports")
APART = {"reports/dvc.yaml", "reports/dvc.lock", "reports/report.html", "reports/README.md"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flipped")
    run_from_nothing(folder)
    return folder


def written(project: Path) -> dict[str, bytes]:
    """All outputs after `download`, by their paths."""
    found = [path for name in WRITTEN for path in [project / name, *(project / name).rglob("*")]]
    names = {str(path.relative_to(project)) for path in found if path.is_file()} - APART
    return {name: (project / name).read_bytes() for name in sorted(names)}


@in_torture
@pytest.mark.timeout(7200)
def test_a_flipped_bit_in_an_output_is_mended(project: Path, injected: Injected) -> None:
    """Tables and pictures too, of which no stage could know what they were."""
    expected = written(project)
    assert len(expected) > 25
    for _ in range(40):
        damaged = WHERE.choice(list(expected))
        flip(project / damaged)
        with injected("flipped bit in an output") as fault:
            run(project, "dvc", "repro")
            assert written(project) == expected, damaged
            assert git(project, "status", "--porcelain") == ""
            fault.healed()
