"""What tests of the commands share."""

from pathlib import Path

import pytest
from distributed import Client

from normlab.training import cluster
from tests.pipeline.copies import run_from_nothing

IN_PROCESS = {
    "processes": False,
    "n_workers": 1,
    "threads_per_worker": 1,
    "dashboard_address": ":0",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, run once from nothing."""
    folder = tmp_path_factory.mktemp("clone")
    run_from_nothing(folder)
    return folder


@pytest.fixture
def in_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages by their `main` in this process, on one thread of it."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))
