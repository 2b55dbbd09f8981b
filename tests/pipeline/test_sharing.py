"""docs/sharing.md, every line of it: one clone has run the pipeline, others take the results."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from dvc.repo import Repo

from normlab.data import datasets
from normlab.network import networks
from normlab.params import mapping
from tests.pipeline import servers
from tests.pipeline.copies import ROOT, copy_of, git, link_environment


def blocks(page: str, language: str = "sh") -> list[list[str]]:
    """Take the lines of a page's blocks of commands."""
    found = re.findall(rf"(?ms)^```{language}\n(.*?)^```", (ROOT / page).read_text())
    return [block.splitlines() for block in found]


README, MODELS = "README.md", "docs/models.md"
# A block that is new needs a test: it fits no name here.
SET, OWN, SEND, FETCH, ONLY, STUDIES, EXPERIMENTS = blocks("docs/sharing.md")
TRY = FETCH[-1].replace("exp run", "exp run --name tried")
TRIED = ["train_bn_l1", "evaluate", "plot"]
IDENTITY = {
    f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
ADDRESS, ADDRESS_TO_READ = "s3://bucket/normlab", "https://results.example.org/normlab"
KEY, SERVICE = "~/.ssh/id_ed25519", "https://minio.example.org"
pytestmark = pytest.mark.timeout(3600)


def do(
    project: Path, lines: list[str], changes: Mapping[str, str] | None = None, status: int = 0
) -> str:
    """Run lines of a page in an activated environment, some words changed; give what is said."""
    text = "\n".join(lines)
    for old, new in (changes or {}).items():
        text = text.replace(old, new)
    outside = {name: v for name, v in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=project,
        env={**outside, **IDENTITY, "PATH": f"{project}/.venv/bin:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def project(template: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that has been run, with another penalty too."""
    folder = tmp_path_factory.mktemp("first")
    copy_of(template, folder)
    (folder / ".venv").unlink()
    link_environment(folder)
    do(folder, [f"export DASK_SCHEDULER_ADDRESS={scheduler}", TRY])
    git(folder, "checkout", ".")
    do(folder, ["dvc checkout --quiet"])
    return folder


@pytest.fixture
def first(project: Path) -> Iterator[Path]:
    """That copy, as before once the test is over."""
    begun = git(project, "rev-parse", "HEAD").strip()
    yield project
    git(project, "reset", "--quiet", "--hard", begun)
    for of in ("", "studies/"):
        (project / of / ".dvc/config.local").unlink(missing_ok=True)


def clone(first: Path, folder: Path) -> Path:
    """What somebody else has: what is in Git, and the set-up."""
    git(first, "clone", "--quiet", str(first), str(folder))
    link_environment(folder)
    if (first / ".dvc/config.local").exists():
        shutil.copy(first / ".dvc/config.local", folder / ".dvc/config.local")
    return folder


@contextmanager
def place(kind: str, folder: Path, environment: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Start a server of a kind; give what takes the place of the page's addresses."""
    if kind == "ssh":
        with servers.ssh(folder) as (address, key):
            yield {ADDRESS: address, KEY: str(key)}
    elif kind == "s3":
        for name, value in servers.CREDENTIALS.items():
            environment.setenv(name, value)
        with servers.s3() as service:
            yield {SERVICE: service}
    else:
        yield {ADDRESS: str(folder / "store")}


@pytest.mark.parametrize("kind", ["folder", "ssh", "s3"])
def test_what_one_has_run_another_need_not(
    first: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, service = OWN
    with place(kind, tmp_path, monkeypatch) as changes:
        *add, commit = SET
        do(first, [*add, *{"ssh": [key], "s3": [service]}.get(kind, []), commit], changes)
        assert do(first, SEND).endswith("studies: no remote, left out\n")
        second = clone(first, tmp_path / "second")
        pull, *runs = FETCH
        do(second, [pull])
        assert git(second, "status", "--porcelain") == ""
        said = do(second, runs)
    assert "Running stage" not in said
    assert "Data and pipelines are up to date." in said
    assert re.findall(r"Stage '(.*)' is cached - skipping run", said) == TRIED
    (tried,) = git(first, "for-each-ref", "--format=%(refname)", "refs/exps/*/*/tried").split()
    metrics = git(first, "show", f"{tried}:reports/metrics.json")
    assert (second / "reports/metrics.json").read_text() == metrics


def test_less_can_be_fetched_and_experiments_travel(first: Path, tmp_path: Path) -> None:
    do(first, SET, {ADDRESS: f"{tmp_path}/store"})
    do(first, [TRY])
    git(first, "checkout", ".")
    do(first, SEND)
    push, *take = EXPERIMENTS
    hub = tmp_path / "hub"
    git(first, "clone", "--quiet", "--bare", str(first), str(hub))
    git(first, "remote", "add", "origin", str(hub))
    do(first, [push])
    second = clone(hub, tmp_path / "second")
    said = do(second, ONLY)
    assert "Running stage" not in said
    assert re.findall(r"Stage '(.*)' is cached - skipping run", said) == TRIED
    third = clone(hub, tmp_path / "third")
    do(third, take)
    assert do(third, ["dvc repro"]).endswith("Data and pipelines are up to date.\n")
    for name in ("dvc.lock", "reports/metrics.json", "models/bn_l1/seed1/epoch01.safetensors"):
        assert (third / name).read_bytes() == (second / name).read_bytes()


def test_the_studies_have_a_remote_of_their_own(first: Path, tmp_path: Path) -> None:
    """Of the studies there is one stage here, which reads committed tables."""
    judge = ["dvc --cd studies repro"]
    shutil.copytree(ROOT / "studies/reports", first / "studies/reports", dirs_exist_ok=True)
    file = first / "studies/dvc.yaml"
    file.write_text(json.dumps({"stages": {"judge": mapping(file)["stages"]["judge"]}}))
    do(first, judge)
    git(first, "add", "studies")
    git(first, "commit", "--quiet", "--message", "Judge")
    for lines in (SET, STUDIES):
        do(first, lines, {ADDRESS: f"{tmp_path}/store"})
    assert "left out" not in do(first, SEND)
    second = clone(first, tmp_path / "second")
    do(second, FETCH[:1])
    (second / "studies/dvc.lock").unlink()
    assert "Stage 'judge' is cached - skipping run" in do(second, judge)
    assert git(second, "status", "--porcelain") == ""


def test_a_reader_needs_a_web_server(first: Path, tmp_path: Path) -> None:
    """The lines of the README, short of `make verify`, which has tests of its own."""
    do(first, SET, {ADDRESS: f"{tmp_path}/store"})
    do(first, SEND)
    (lines,) = [block for block in blocks(README) if any("https://" in line for line in block)]
    *take, last = lines
    pull, verify = last.split(" && ")
    assert verify == "make verify BUDGET=small"
    with servers.web(tmp_path / "store") as address:
        second = clone(first, tmp_path / "second")
        do(second, ["dvc remote remove store", *take, pull], {ADDRESS_TO_READ: address})
    assert do(second, ["dvc repro"]).endswith("Data and pipelines are up to date.\n")


@pytest.mark.usefixtures("_first_images")
def test_a_model_can_be_used_without_the_pipeline(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of docs/models.md, by a tag of a repository that has a remote."""
    do(first, SET, {ADDRESS: f"{tmp_path}/store"})
    do(first, SEND)
    repository = {"https://git.example.org/normlab": str(first)}
    (get,) = blocks(MODELS)
    do(first, get, repository | {"models-gn": f"{tmp_path}/models/gn"})
    use, find = ("\n".join(lines) for lines in blocks(MODELS, "python"))
    found: dict[str, Any] = {}
    exec(find.replace(*next(iter(repository.items()))), found)  # noqa: S102
    assert found["found"] == {"rev": git(first, "rev-parse", "HEAD").strip(), "path": "models/gn"}

    monkeypatch.chdir(tmp_path)
    images, labels = datasets.read_split(first / "data/test", "test")
    used: dict[str, Any] = {"test": torch.from_numpy(images)}
    zeros = "torch.zeros(1, 28, 28, dtype=torch.uint8)"
    assert zeros in use
    exec(use.replace("epoch18", "epoch01").replace(zeros, "test"), used)  # noqa: S102
    curves = pd.read_csv(first / "reports/test_curves.csv")
    rows = curves.query("variant == 'gn' and seed == 0 and epoch == 1")
    right = (used["digits"].numpy() == labels).mean()
    assert right == pytest.approx(rows["accuracy"].item(), abs=5e-4)


def test_the_final_models_are_declared(project: Path) -> None:
    with Repo(str(project)) as repo:
        (declared,) = (of for file, of in repo.artifacts.read().items() if file == "dvc.yaml")
    outs = {name: stage.get("outs") for name, stage in mapping(ROOT / "dvc.yaml")["stages"].items()}
    for variant in networks.VARIANTS.values():
        artifact = declared[variant.key.replace("_", "-")]
        assert [artifact.path] == outs[f"train_{variant.key}"]
        assert (artifact.type, artifact.desc) == ("model", variant.label)
        assert artifact.labels == ["mnist", "cnn"]


def test_a_remote_must_check_what_it_gives(first: Path, tmp_path: Path) -> None:
    assert "error: no remote, allowed: what `dvc remote add" in do(first, SEND, status=2)
    do(first, SET[:1], {ADDRESS: f"{tmp_path}/store"})
    for lines in (SEND, FETCH[:1]):
        said = do(first, lines, status=2)
        assert "error: .: remote store: got verify = false, allowed: true (dvc remote " in said
    assert not (tmp_path / "store").exists()
