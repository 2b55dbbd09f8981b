"""The stage `download` under DVC and without a network: data placed by hand, data in place."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from normlab.data import idx
from normlab.data.datasets import MNIST
from normlab.params import mapping
from tests.pipeline.copies import copy, data, git, run, set_params, stages_run

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("all_elsewhere")]

BUDGET = {"seeds": "[0]", "epochs": "1", "val_size": "50", "train_size": "50"}
NAMES = list(MNIST.files)
IN_PLACE = [f"data/{split}/{name}" for split, names in MNIST.splits.items() for name in names]


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> Iterator[None]:
    """Let every request end at a closed port, and pip look nowhere."""
    data()
    with pytest.MonkeyPatch.context() as patched:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patched.setenv(name, "http://127.0.0.1:9")
            patched.setenv(name.upper(), "http://127.0.0.1:9")
        patched.setenv("PIP_CONFIG_FILE", os.devnull)
        patched.setenv("PIP_NO_INDEX", "1")
        yield


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, _no_network: None) -> Path:
    """A copy of the project with all of the data in place, one variant trained, all committed."""
    folder = tmp_path_factory.mktemp("project")
    copy(folder, images=None)
    set_params(folder / "params.yaml", BUDGET)
    assert repro(folder) == ["download", "train_gn"]
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Run")
    return folder


@pytest.fixture
def project(committed: Path) -> Iterator[Path]:
    yield committed
    git(committed, "checkout", ".")
    git(committed, "clean", "-fdxq", "data/incoming")
    run(committed, "dvc", "checkout", "--force", "dvc.yaml:download", "train_gn")


def repro(project: Path) -> list[str]:
    return stages_run(run(project, "dvc", "repro", "train_gn"))


def place(project: Path) -> Path:
    """Put the four files where a person would, under names that tools give them."""
    folder = project / "data/incoming/MNIST/raw"
    folder.mkdir(parents=True)
    for path in IN_PLACE:
        name = Path(path).name.replace("-idx", ".idx")
        shutil.copy(project / path, folder / name)
    return folder.parent


def locked(project: Path) -> dict[str, Any]:
    stages: dict[str, Any] = mapping(project / "dvc.lock")["stages"]
    return stages


def assert_in_place(project: Path) -> None:
    done = run(project, "dvc", "data", "status", "--granular")
    assert "No changes." in done.stdout


def test_placed_files_are_noticed_and_change_nothing_but_what_the_lock_says_of_them(
    project: Path,
) -> None:
    before = locked(project)
    placed = place(project)
    assert git(project, "status", "--porcelain") == ""
    assert repro(project) == ["download"]
    after = locked(project)
    others = [dep["path"] for dep in before["download"]["deps"] if dep["path"] != "data/incoming"]
    (changed,) = (dep for dep in after["download"]["deps"] if dep["path"] not in others)
    assert (changed["path"], changed["nfiles"]) == ("data/incoming", 5)
    after["download"]["deps"][0] = before["download"]["deps"][0]
    assert after == before

    shutil.rmtree(placed)
    assert repro(project) == ["download"]
    assert git(project, "status", "--porcelain") == ""
    (project / "data/incoming/.DS_Store").write_text("left behind")
    assert repro(project) == []


def test_what_cannot_be_used_is_an_error_and_nothing_is_lost(project: Path) -> None:
    placed = place(project)
    name, size = NAMES[1].replace("-idx", ".idx"), MNIST.files[NAMES[1]].size
    (placed / "raw" / name).write_bytes(bytes(size))
    (placed / "README.txt").write_text("downloaded on Monday")
    refused = run(project, "dvc", "repro", "train_gn", check=False)
    assert refused.returncode != 0
    (error,) = (line for line in refused.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith(
        "error: cannot use data/incoming/MNIST/README.txt (got 20 bytes), "
        "data/incoming/MNIST/raw/train-labels.idx1-ubyte (got SHA-256 "
    )
    assert "Traceback" not in refused.stderr
    assert git(project, "status", "--porcelain") == ""
    assert_in_place(project)
    shutil.rmtree(placed)
    assert repro(project) == []


@pytest.mark.parametrize("damage", ["alter", "delete", "add"])
def test_what_is_in_place_is_checked(project: Path, damage: str) -> None:
    file = project / "data/train" / NAMES[1]
    if damage == "alter":
        file.write_bytes(b"\0" * file.stat().st_size)
    if damage == "delete":
        file.unlink()
    if damage == "add":
        (file.parent / "notes.txt").write_text("mine")
        assert repro(project) == ["download"]
    else:
        refused = run(project, "dvc", "repro", "train_gn", check=False)
        assert refused.returncode != 0
        assert f"error: no source has {NAMES[1]}: place what is missing" in refused.stderr
        assert "what was there before: dvc checkout download" in refused.stderr
        assert (file.parent / NAMES[0]).exists()
        run(project, "dvc", "checkout", "--force", "download")
    assert_in_place(project)
    assert repro(project) == []
    assert git(project, "status", "--porcelain") == ""


def test_an_edited_source_runs_the_stage_on_what_is_in_place(project: Path) -> None:
    with (project / "normlab/data/sources.py").open("a") as stream:
        stream.write("# edited\n")
    assert repro(project) == ["download"]
    assert_in_place(project)


@pytest.mark.parametrize("cached", [True, False])
def test_an_experiment_in_a_folder_of_its_own_takes_what_the_workspace_has(
    project: Path, cached: bool
) -> None:
    cache, name = project / ".dvc/cache", f"cached-{cached}".lower()
    if not cached:
        cache.rename(project / ".dvc/away")
    try:
        with (project / "normlab/data/sources.py").open("a") as stream:
            stream.write(f"# {name}\n")
        options = ["--temp", "--name", name, "-S", "seeds=[1]"]
        done = run(project, "dvc", "exp", "run", *options, "train_gn")
        assert stages_run(done) == ["download", "train_gn"]
    finally:
        if not cached:
            shutil.copytree(project / ".dvc/away", cache, dirs_exist_ok=True)
    run(project, "dvc", "exp", "branch", name, name)
    lock = git(project, "show", f"{name}:dvc.lock")
    assert all(out["md5"] in lock for out in locked(project)["download"]["outs"])


@pytest.mark.parametrize("folder", ["in place", "incoming"])
def test_a_clone_takes_the_data_from_where_a_person_has_put_them(
    project: Path, tmp_path: Path, folder: str
) -> None:
    clone = tmp_path / "clone"
    git(project, "clone", "-q", str(project), str(clone))
    (clone / ".venv").symlink_to(project / ".venv")
    for path in IN_PLACE:
        (clone / path).parent.mkdir(exist_ok=True)
        shutil.copy(project / path, clone / path)
    if folder == "incoming":
        place(clone)
        for split in MNIST.splits:
            shutil.rmtree(clone / "data" / split)
    assert repro(clone) == ["download", "train_gn"]
    assert bool(git(clone, "status", "--porcelain")) == (folder == "incoming")


def test_all_stages_run_on_all_images(project: Path) -> None:
    """Other copies of the project have the first images alone."""
    ran = stages_run(run(project, "dvc", "repro"))
    assert sorted(ran[:-2]) == ["train_bn_l1", "train_ln"]
    assert ran[-2:] == ["evaluate", "plot"]
    counts = pd.read_csv(project / "reports/confusion.csv").groupby("variant")["count"].sum()
    assert counts.tolist() == [len(idx.decode(data()[MNIST.splits["test"][1]]))] * 3
