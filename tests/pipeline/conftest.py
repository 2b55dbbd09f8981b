"""What tests of the commands share."""

from pathlib import Path

import pytest
from distributed import Client

from normlab.data import datasets
from normlab.training import cluster
from tests.pipeline.copies import copy_of, first, made_once, pins, run_from_nothing, shared

IN_PROCESS = {
    "processes": False,
    "n_workers": 1,
    "threads_per_worker": 1,
    "dashboard_address": ":0",
}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, run once from nothing: for all processes that test, to be copied."""
    return made_once(shared(tmp_path_factory) / "template", run_from_nothing)


@pytest.fixture(scope="module")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, run once from nothing."""
    folder = tmp_path_factory.mktemp("clone")
    copy_of(template, folder)
    return folder


@pytest.fixture
def _first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take for MNIST, in this process too, what copies of the project take for it."""
    for name, pinned in pins(first()).items():
        monkeypatch.setitem(datasets.MNIST.files, name, pinned)


@pytest.fixture
def in_process(project: Path, _first_images: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages by their `main` in this process, on one thread of it."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))
