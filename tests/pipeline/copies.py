"""Copies of the project, and the commands that users run in them."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from normlab import params
from normlab.data import datasets, idx, sources
from normlab.data.datasets import MNIST, Pinned
from normlab.errors import InputError
from tools.git import copy_known

ROOT = Path(__file__).parents[2]
TRAIN = ["train_bn_l1", "train_gn", "train_ln"]
BUDGET = {"seeds": "[0, 1]", "epochs": "1", "val_size": "500", "train_size": "500"}
# A copy's data are the first of each split: no stage does other things with more of them.
IMAGES = {"train": 4000, "test": 500}
PINNED = dict(MNIST.files)
ATTEMPTS, SECONDS_BETWEEN = 3, 20.0  # to fetch them: a registry may be out of reach for a moment
# Tests change these, from what they are here, whatever is committed.
RECIPE = {
    "dataset": "mnist",
    "batch_size": "128",
    "lr": "0.015",
    "momentum": "0.95",
    "nesterov": "true",
    "lr_schedule": "cosine",
    "lr_step_epochs": "9",
    "lr_step_factor": "0.1",
    "l1_lambda": "0.0001",
    "gn_groups": "4",
    "ln_affine": "elementwise",
    "affine_rotation": "10.0",
    "affine_translation": "0.1",
    "affine_scale": "[0.8, 1.2]",
    "affine_shear": "8.0",
    "device": "cpu",
    "precision": "auto",
}


def set_params(path: Path, values: dict[str, str]) -> None:
    text = path.read_text()
    for key, value in values.items():
        # DVC writes a list as an item a line.
        text = re.sub(rf"(?m)^{key}:.*\n(- .*\n)*", f"{key}: {value}\n", text)
    path.write_text(text)


def change(path: Path, values: Mapping[str, Mapping[str, object]]) -> None:
    """Give keys in sections of a file other values. It becomes JSON, which is YAML too."""
    before = YAML(typ="safe").load(path)
    sections = {name: {**before[name], **changed} for name, changed in values.items()}
    path.write_text(json.dumps({**before, **sections}, indent=2))


LEFT_OUT = ("fashion", "recipes", "rates", "tuned", "choose")


def leave_out(folder: Path) -> None:
    """Take studies out of a copy, whose others are to be run: these are run as those are.

    Fashion-MNIST is another 31 MB to be fetched, and rates are chosen by hundreds of trials.
    """
    yaml = YAML()
    yaml.width = 1000
    for name in ("params", "dvc", "claims"):
        path = folder / f"studies/{name}.yaml"
        values = yaml.load(path)
        if name == "dvc":
            stages = values["stages"]
            _without(stages["download"]["foreach"])
            _without(stages["score"]["foreach"])
            _without(stages["judge"]["deps"])
            _without(stages["judge"]["params"])
            _without(stages)
        elif name == "claims":
            claims = values["claims"]
            for name in [name for name in claims if "places" in claims[name]]:
                del claims[name]
            for claim in claims.values():
                claim.pop("twin", None)
        else:
            _without(values)
        yaml.dump(values, path)


def _without(values: Any) -> None:
    for one in [one for one in values if any(word in str(one) for word in LEFT_OUT)]:
        values.pop(one) if isinstance(values, dict) else values.remove(one)


def run(
    project: Path, *command: str, check: bool = True, activated: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `.venv/bin/<command>` as a user who has not activated the environment, or who has."""
    path = [p for p in os.environ["PATH"].split(os.pathsep) if ".venv" not in p]
    if activated:
        path.insert(0, str(project / ".venv/bin"))
    done = subprocess.run(
        [f".venv/bin/{command[0]}", *command[1:]],
        cwd=project,
        env={**os.environ, "PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]


def assert_in_order(ran: list[str]) -> None:
    """All stages ran, each after what it depends on; DVC says nothing of those that train."""
    first, *trained, evaluated, plotted = ran
    assert (first, evaluated, plotted) == ("download", "evaluate", "plot")
    assert sorted(trained) == TRAIN


def git(project: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


@cache
def data() -> dict[str, bytes]:
    """MNIST's files, from the project or else fetched once for all processes that test."""
    places = [ROOT / "data" / split for split in MNIST.splits]

    def fetch(folder: Path) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                files = sources.fetch(MNIST, ROOT / "data/incoming", places)
            except InputError:
                if not left:
                    raise
                time.sleep(SECONDS_BETWEEN)
            else:
                break
        for name, content in files.items():
            (folder / name).write_bytes(content)

    kept = made_once(ROOT / ".pytest_cache/mnist", fetch)
    return sources.fetch(MNIST, ROOT / "data/incoming", [*places, kept])


def first(images: Mapping[str, int] = IMAGES) -> dict[str, bytes]:
    """MNIST's files with the first images of each split alone."""
    return {
        name: idx.encode(idx.decode(data()[name])[: images[split]])
        for split, names in MNIST.splits.items()
        for name in names
    }


def pins(files: Mapping[str, bytes]) -> dict[str, Pinned]:
    """What a data set says of files."""
    return {
        name: Pinned(len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }


def pin(folder: Path, files: Mapping[str, bytes]) -> None:
    """Have a copy of the project take these for MNIST's files."""
    source = folder / "normlab/data/datasets.py"
    text = source.read_text()
    for name, now in pins(files).items():
        before = f'{PINNED[name].size:_}, "{PINNED[name].sha256}"'
        assert text.count(before) == 1
        text = text.replace(before, f'{now.size:_}, "{now.sha256}"')
    source.write_text(text)


def place_data(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put both splits where a project has them after `download`."""
    for split, names in MNIST.splits.items():
        (folder / "data" / split).mkdir(exist_ok=True)
        for name in names:
            (folder / "data" / split / name).write_bytes(files[name])
        told = json.dumps(datasets.description(MNIST, split), indent=2)
        (folder / "data" / split / datasets.DESCRIPTION).write_text(f"{told}\n")


def heed() -> None:
    """Ignore nothing: what a shell starts in its background ignores Ctrl-C, `nohup` a hang-up."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def copy(folder: Path, images: Mapping[str, int] | None = IMAGES) -> None:
    """Copy the project, with a small budget and some of its data or, for None, all of them.

    It has no locks, no reports, no cache.
    """

    def wanted(name: str) -> bool:
        made = name.endswith("dvc.lock") or name.startswith(("reports/", "studies/reports/"))
        return not made or name == "reports/dvc.yaml"

    copy_known(ROOT, folder, wanted)
    files = data() if images is None else first(images)
    pin(folder, files)
    place_data(folder, files)
    (folder / ".venv").symlink_to(sys.prefix)
    set_params(folder / "params.yaml", BUDGET | RECIPE)
    git(folder, "init", "-q")


def run_from_nothing(folder: Path) -> None:
    """Copy the project, run its pipeline and commit what that made."""
    copy(folder)
    assert_in_order(stages_run(run(folder, "dvc", "repro")))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Run")


def copy_of(template: Path, folder: Path) -> None:
    """Copy a copy of the project with all that it has made into an empty folder."""
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)


def shared(factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of all processes that test."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Have the first process that asks for a folder make it, and all others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            begun = folder.with_suffix(".begun")
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir()
            make(begun)
            begun.rename(folder)
    return folder


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `make` as if neither another `make` nor GitHub had started this."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "GITHUB_"))}
    return subprocess.run(
        ["make", *words],
        cwd=folder,
        env=ours | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def link_environment(folder: Path) -> None:
    """Give a copy of the project an environment that `make` takes for installed."""
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("installed"):
            (folder / ".venv" / part.name).symlink_to(part)
    assert make(folder, "--touch", "test").returncode == 0


class Recorder:
    """Parameters that remember which of them were read."""

    def __init__(self, values: params.Section) -> None:
        self.values, self.read = values, set[str]()

    def __getattr__(self, name: str) -> object:
        self.read.add(name)
        return getattr(self.values, name)


def clone_of(project: Path, folder: Path, *, with_studies: bool) -> Path:
    """Clone the project, with the results of the pipeline, and of the studies if asked for."""
    clone = folder / "clone"
    git(project, "clone", "-q", str(project), str(clone))
    (clone / ".venv").symlink_to(project / ".venv")
    for of in ("", "studies/") if with_studies else ("",):
        shutil.copytree(project / f"{of}.dvc/cache", clone / f"{of}.dvc/cache")
        run(clone, "dvc", "--cd", of or ".", "checkout")
    return clone
