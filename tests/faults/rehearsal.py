"""A small project in which every stage can be run over and over, and be hurt while it writes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from normlab import params, studies
from normlab.data.datasets import MNIST
from tests.pipeline.copies import RECIPE, ROOT, change, first, pin, place_data, set_params
from tools.git import copy_known

OLD = b"old"
BUDGET = {"seeds": "[0, 1]", "epochs": "1", "val_size": "50", "train_size": "50"}
NORMS = {"seeds": 2, "epochs": 1, "train_size": 50}
STAGES = {
    "download": "data/train data/test",
    "train gn": "models/gn reports/history/gn.csv",
    "evaluate": "data/misclassified.safetensors reports/metrics.json reports/test_curves.csv "
    "reports/summary.csv reports/comparisons.csv reports/confusion.csv reports/parameters.csv "
    "reports/misclassified.csv",
    "plot": "reports/figures",
    "study norms": "studies/models/norms studies/reports/norms_history.csv",
    "score norms": "studies/reports/norms.csv studies/reports/norms_summary.csv "
    "studies/reports/norms_weights.csv",
    "judge": "studies/reports/findings.csv studies/reports/findings.json",
    "report": "reports/report.html reports/README.md",
}
"""A stage of each kind, in the order in which they depend on each other, and its outputs."""
OF_STUDIES = ("study norms", "score norms", "judge")
LIBRARY, WRITES = "writes.so", "writes.json"


class Ended(NamedTuple):
    """How a run of a stage ended."""

    status: int
    said: str


class Stages:
    """Stages, imported once and run in forks; `writes` says how often each wrote at first.

    Later it may write less: what was killed before goes on from what it has kept.
    """

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        noted = folder / WRITES
        self.writes: dict[str, int] = json.loads(noted.read_text()) if noted.exists() else {}
        self.errors = (folder / "said").open("w+", newline="\n")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))],
            env=os.environ
            | {"LD_PRELOAD": str(folder / LIBRARY), "PYTHONPATH": str(self.project)}
            # As `stages/python` has it: Dask's log is none of a stage's lines.
            | {"DASK_LOGGING__DISTRIBUTED": "critical"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def run(self, command: str, at: int = 0, error: int = 0) -> Ended:
        """Run one; its `at`th write and all after it fail with `error`, or the `at`th kills it."""
        assert self.process.stdin
        assert self.process.stdout
        before = self.errors.seek(0, os.SEEK_END)
        folder = "studies" if command in OF_STUDIES else "."
        words = [str(self.project), folder, str(at), str(error), *command.split()]
        print(shlex.join(words), file=self.process.stdin, flush=True)
        *writes, status = map(int, self.process.stdout.readline().split())
        self.errors.seek(before)
        # A bar is not a line.
        said = [line for line in self.errors.read().split("\n") if line and "\r" not in line]
        if status == 0:
            self.writes.setdefault(command, writes[0])
        return Ended(status, "\n".join(said))

    def end(self) -> None:
        """End the process that they are forked from."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def rehearse(folder: Path) -> None:
    """Prepare a project, run all stages in it and note how often each wrote.

    No path in it is of this folder, which may be copied.
    """
    prepare(folder / "project")
    source = Path(__file__).with_name("writes.c")
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1"]
    subprocess.run([*command, str(source), "-o", str(folder / LIBRARY)], check=True)
    stages = Stages(folder)
    for name in ["train bn_l1", "train ln", *STAGES]:
        ended = stages.run(name)
        assert ended.status == 0, f"{name}: {ended.said}"
    stages.end()
    (folder / WRITES).write_text(json.dumps(stages.writes))


def prepare(project: Path) -> None:
    """Copy the project, with some data and a tiny budget; the studies' tables are the committed.

    Its code is in a folder beside it, where Python may put what it compiles.
    """

    def wanted(name: str) -> bool:
        return not name.startswith(("tests/", "docs/", "normlab/", "stages/", "benchmarks/"))

    copy_known(ROOT, project, wanted)
    code = project.with_name("code")
    for name in ("stages", "normlab"):
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, code / name, ignore=compiled)
        (project / name).symlink_to(Path("../code", name))
    shutil.copy(ROOT / "requirements.lock", code)
    (code / ".venv").symlink_to(sys.prefix)
    some = first()
    pin(code, some)
    place_data(project, some)
    (project / "studies/data/mnist").mkdir(parents=True)
    for split in MNIST.splits:
        (project / "studies/data/mnist" / split).symlink_to(Path("../../../data", split))
    set_params(project / "params.yaml", BUDGET | RECIPE)
    own = project / "studies/params.yaml"
    # There is no history of registrations here.
    none: dict[str, dict[str, object]] = {name: {"registered": {}} for name in studies.load(own)}
    change(own, none | {"norms": NORMS | none["norms"]})
    leave_out_trends(project / "studies/claims.yaml")


def leave_out_trends(path: Path) -> None:
    """Leave the other claims, which are judged in a fraction of the time."""
    told = params.mapping(path)
    claims = {name: one for name, one in told["claims"].items() if one["test"] != "trend"}
    path.write_text(json.dumps(told | {"claims": claims}, indent=2))


def content(project: Path) -> dict[str, bytes]:
    """All files of a project, hidden ones too, by their paths."""
    found = {}
    for folder, _, names in os.walk(project):
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink():
                found[str(path.relative_to(project))] = path.read_bytes()
    return found


def outputs(command: str, files: Mapping[str, bytes]) -> list[str]:
    """Pick the outputs of a stage."""
    own = STAGES[command].split()
    return [name for name in files if any(f"{name}/".startswith(f"{one}/") for one in own)]


def age(project: Path, command: str, expected: Mapping[str, bytes]) -> None:
    """Put other contents in place of a stage's outputs; what `download` finds is not its own."""
    for name in outputs(command, expected):
        if command != "download":
            (project / name).write_bytes(OLD)


def whole(command: str, expected: Mapping[str, bytes], found: Mapping[str, bytes]) -> bool:
    """Whether every output is as it was before or as it shall be.

    A history grows with every epoch.
    """
    return all(
        found.get(name) in (OLD, expected[name])
        for name in outputs(command, expected)
        if "history" not in name
    )


def spread(total: int, count: int) -> list[int]:
    """Choose `count` of the numbers 1 to `total`, evenly, the middle ones if they are few."""
    chosen = min(total, count)
    return [1 + int((place + 0.5) * total / chosen) for place in range(chosen)]
