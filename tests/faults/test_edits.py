"""Edits while a stage runs: what DVC records is what ran, or nothing."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from normlab.errors import InputError
from normlab.params import mapping
from stages import provenance
from tests.faults.conftest import Injected
from tests.pipeline.copies import copy, run, set_params
from tools.git import PROJECTS

ROOT = Path(__file__).parents[2]
BUDGET = {"seeds": "[0]", "epochs": "20", "val_size": "50", "train_size": "50"}
HISTORY = "reports/history/gn.csv"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, nothing trained."""
    folder = tmp_path_factory.mktemp("project")
    copy(folder)
    set_params(folder / "params.yaml", BUDGET)
    return folder


def repro_with(edit: Callable[[], object], project: Path) -> tuple[int, str]:
    """Run `dvc repro train_gn`, and `edit` when the first epochs are written."""
    command = [".venv/bin/dvc", "repro", "train_gn"]
    with (project / "printed").open("w+") as printed:
        process = subprocess.Popen(command, cwd=project, stdout=printed, stderr=printed)
        while not (project / HISTORY).exists():
            assert process.poll() is None
            time.sleep(0.01)
        edit()
        return process.wait(), Path(printed.name).read_text()


def test_an_edit_while_a_stage_runs_is_not_recorded(project: Path, injected: Injected) -> None:
    engine, lock = project / "normlab/network/engine.c", project / "dvc.lock"
    with injected("edit while a stage runs") as fault:
        status, printed = repro_with(
            lambda: engine.write_text(engine.read_text() + "// edited\n"), project
        )
        assert status != 0
        (line,) = (line for line in printed.splitlines() if line.startswith("error: "))
        assert line.startswith("error: normlab/network/engine.c: changed while the stage ran")
        assert "Traceback" not in printed
        assert "what was there before: dvc checkout train_gn" in printed
        assert list(mapping(lock)["stages"]) == ["download"]
        fault.refused()
    (project / HISTORY).unlink()

    def edit_what_it_does_not_read() -> None:
        params = project / "params.yaml"
        set_params(params, {"ln_affine": "channel"})
        params.write_text(f"# another remark\n{params.read_text()}")
        (project / "normlab/network/.engine.c.swp").write_bytes(b"an editor's")

    with injected("edit of what a stage does not read") as fault:
        status, printed = repro_with(edit_what_it_does_not_read, project)
        assert (status, "Running stage 'train_gn'" in printed) == (0, True), printed
        assert "are up to date" in run(project, "dvc", "status", "train_gn").stdout
        fault.healed()


@pytest.mark.parametrize("of", PROJECTS)
def test_what_is_compared_is_what_dvc_records(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repo(str(ROOT / of)) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
    for name, stage in stages.items():
        monkeypatch.chdir(stage.wdir)
        arguments = tuple(stage.cmd.split()[4:])
        (found,) = (s for f in provenance._pipelines() for s in provenance._stages(f, arguments))
        deps = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        assert [Path(dep.def_path) for dep in deps] == [Path(p) for p in found["deps"]], name
        noted = provenance._note([found])
        for dep in deps:
            hashes = {h for file, h in noted.items() if Path(file).is_relative_to(dep.def_path)}
            assert (hashes != {provenance.GONE}) == dep.exists, dep
        params = {f"{dep.def_path}: {key}" for dep in stage.params for key in dep.params}
        assert {key for key in noted if ": " in key} == params, name


DVC_YAML = """\
stages:
  download:
    cmd: exec stages/python -m stages download
    deps: [code.py, folder, gone.txt]
    params: [a, section.b, {other.yaml: null}]
  each:
    foreach: [x, y]
    do:
      cmd: exec stages/python -m stages score ${item}
      deps:
        - ${item}.txt
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small `dvc.yaml` and what its stages read, as the working directory."""
    monkeypatch.chdir(tmp_path)
    contents = {
        "dvc.yaml": DVC_YAML,
        ".dvcignore": (ROOT / ".dvcignore").read_text(),
        "params.yaml": "a: 1  # one\nsection: {b: 2, c: 3}\nd: 4\n",
        "other.yaml": "e: 5\n",
        "code.py": "A = 1\n",
        "folder/engine.c": "int a;\n",
        "x.txt": "x",
        "y.txt": "y",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


EDITS = {
    "code.py": ("A = 2\n", "code.py"),
    "folder/engine.c": ("int b;\n", "folder/engine.c"),
    "folder/new.c": ("", "folder/new.c"),
    "gone.txt": ("", "gone.txt"),
    "params.yaml": ("a: 2\nsection: {b: 3, c: 3}\n", "params.yaml: a, params.yaml: section.b"),
    "other.yaml": ("e: 5\nf: 6\n", "other.yaml: f"),
}


@pytest.mark.parametrize("file", EDITS)
def test_what_was_changed_is_named_in_one_line(small: Path, file: str, injected: Injected) -> None:
    content, named = EDITS[file]
    with injected("edit while a stage runs") as fault:
        with pytest.raises(InputError) as refused, provenance.unchanged("download"):
            (small / file).write_text(content)
        line = str(refused.value)
        assert line.startswith(f"{named}: changed while the stage ran, allowed: no edit")
        assert "\n" not in line
        fault.refused()


def test_what_would_be_recorded_as_it_was_is_no_edit(small: Path) -> None:
    with provenance.unchanged("download"):
        (small / "params.yaml").write_text("section: {c: 9, b: 2}\na: 1\n")
        (small / "folder/__pycache__").mkdir()
        for name in ("__pycache__/a.pyc", ".engine.c.swp", "engine.c~", "#engine.c#", ".#engine.c"):
            (small / "folder" / name).write_text("by another program")
        (small / "code.py").write_text("A = 2\n")
        (small / "code.py").write_text("A = 1\n")
    with provenance.unchanged("score", "x"):
        (small / "y.txt").write_text("another stage's")
    with pytest.raises(InputError, match=r"^y\.txt: "), provenance.unchanged("score", "y"):
        (small / "y.txt").write_text("its own")


def test_a_table_of_the_project_beside_that_was_altered_is_refused(
    small: Path, injected: Injected
) -> None:
    table, lock = small / "studies/reports/l1.csv", small / "studies/dvc.lock"
    table.parent.mkdir(parents=True)
    table.write_text("accuracy\n0.99\n")
    made = hashlib.md5(table.read_bytes(), usedforsecurity=False).hexdigest()
    outs = [{"path": "reports/l1.csv", "hash": "md5", "md5": made}]
    lock.write_text(json.dumps({"stages": {"score@l1": {"outs": outs}}}))
    (small / "dvc.yaml").write_text(DVC_YAML.replace("code.py", "studies/reports"))
    with provenance.unchanged("download"):
        pass
    table.write_text("accuracy\n0.98\n")
    with injected("altered table of the project beside") as fault:
        with pytest.raises(InputError) as refused, provenance.unchanged("download"):
            pass
        assert str(refused.value) == (
            "studies/reports/l1.csv: is not what score@l1 has made, as studies/dvc.lock knows it, "
            "allowed: that; `dvc --cd studies repro score@l1` makes it again"
        )
        fault.refused()


def test_of_many_changes_the_first_are_named(small: Path) -> None:
    first = r"^folder/a00, .*, folder/a04 and 15 more: changed while"

    def make_many() -> None:
        for number in range(20):
            (small / f"folder/a{number:02}").touch()

    with pytest.raises(InputError, match=first), provenance.unchanged("download"):
        make_many()


def test_a_file_that_is_taken_away_or_spoilt_is_named(small: Path) -> None:
    with pytest.raises(InputError, match=r"^code\.py: "), provenance.unchanged("download"):
        (small / "code.py").unlink()
    with (
        pytest.raises(InputError, match=r"^params\.yaml: a, params\.yaml: section\.b: changed"),
        provenance.unchanged("download"),
    ):
        (small / "params.yaml").write_text("a: [\n")


@pytest.mark.usefixtures("small")
def test_a_failure_of_the_stage_is_told_and_nothing_else() -> None:
    def fail() -> None:
        with provenance.unchanged("download"):
            Path("code.py").write_text("A = 2\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()


@pytest.mark.usefixtures("small")
def test_a_command_that_no_stage_has_is_refused_under_dvc_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with provenance.unchanged("score", "z"):
        pass
    monkeypatch.setenv("DVC_STAGE", "each@z")
    with (
        pytest.raises(InputError, match=r"^dvc\.yaml: got no stage whose command ends in `-m st"),
        provenance.unchanged("score", "z"),
    ):
        pass


def test_an_edit_within_the_second_of_the_last_one_is_run(small: Path) -> None:
    """Python takes its bytecode for current: the source has the same size and second of edit."""

    def ran() -> Iterator[str]:
        source = small / "code.py"
        for content in ("A = 1\n", "A = 2\n"):
            source.write_text(content)
            os.utime(source, (now, now))
            with provenance.unchanged("download"):
                command = [sys.executable, "-c", "import code; print(code.A)"]
                yield subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                ).stdout

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    now = int(time.time())
    assert list(ran()) == ["1\n", "2\n"]
