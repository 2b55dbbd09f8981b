"""The workflow as it stands: what its steps are, and two of its jobs done here, step by step."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from normlab.params import mapping
from tests.pipeline.copies import data, git, link_environment
from tools import verify

ROOT = verify.ROOT
FILE = ROOT / ".github/workflows/ci.yml"
WORKFLOW = mapping(FILE)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")
BUDGET = {"seeds": [0, 1], "epochs": 1, "val_size": 500, "train_size": 500, "l1_lambda": 1e-4}
ALL = ["download", "evaluate", "plot", "train_bn_l1", "train_gn", "train_ln"]
# A limit for what hangs, not for what is slow.
pytestmark = pytest.mark.timeout(3600)


def test_every_step_is_a_pinned_action_or_a_make_target() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    actions = [step["uses"] for _, step in STEPS if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in actions)
    commands = [step["run"].split() for _, step in STEPS if "uses" not in step]
    assert [command for command in commands if command not in [["make", t] for t in targets]] == []
    assert {"lint", "test", "verify", "repro"} <= {target for _, target in commands}


def test_only_the_report_may_write_and_only_comments() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    extra = {name: job["permissions"] for name, job in JOBS.items() if "permissions" in job}
    assert extra == {"report": {"contents": "read", "pull-requests": "write"}}
    checkouts = [step["with"] for _, step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(JOBS)
    assert all(options["persist-credentials"] is False for options in checkouts)
    assert set(WORKFLOW["on"]) == {"push", "pull_request"}
    # What a pull request's author has written must not become part of a command.
    assert not any("${{" in step.get("run", "") for _, step in STEPS)


def test_every_supported_python_is_tested_and_other_machines_verify() -> None:
    supported = (ROOT / "tools/supported.py").read_text()
    pythons = re.findall(r'"(3\.\d+)"', supported)
    assert JOBS["test"]["strategy"]["matrix"]["python"] == pythons
    machines = JOBS["verify"]["strategy"]["matrix"]["include"]
    assert [m["os"] for m in machines] == ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"]
    assert {m["python"] for m in machines} <= set(pythons)
    assert all(job["timeout-minutes"] <= 60 for job in JOBS.values())


def test_the_environment_is_cached_by_the_locks() -> None:
    for job in JOBS.values():
        options = [step["with"] for step in job["steps"] if "with" in step]
        (cache,) = [own for own in options if own.get("path") == "~/.cache/uv"]
        assert "hashFiles('requirements.lock', 'requirements-dev.lock')" in cache["key"]
        assert "restore-keys" not in cache


class Ran(NamedTuple):
    """What a job has printed, its exit status, the stages it has run, and its comment.

    The comment begins with a line of the repository and the arguments that `gh` was given.
    """

    clone: Path
    status: int
    printed: str
    stages: list[str]
    comment: str | None


def new_clone(hub: Path) -> Path:
    clone = Path(tempfile.mkdtemp(prefix="clone", dir=hub))
    git(hub, "clone", "--quiet", "origin.git", str(clone))
    return clone


def do_steps(job: str, clone: Path, values: dict[str, str], environment: dict[str, str]) -> Ran:
    """Do the steps of a job that are commands, up to the first that fails."""
    status, printed = 0, ""
    for step in JOBS[job]["steps"]:
        if "run" not in step or status:
            continue
        own = {
            name: EXPRESSION.sub(lambda match: values[match[1]], text)
            for name, text in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=clone,
            env=own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        status, printed = done.returncode, printed + done.stdout
    stages = sorted(set(re.findall(r"(?m)^Running stage '(.*)':$", printed)))
    comment = clone / "build/comment"
    told = comment.read_text() if comment.exists() else None
    return Ran(clone, status, printed, stages, told)


def place_data(clone: Path) -> None:
    """Put the data where a person does: less to wait for, and in the lock of every clone alike."""
    for name, content in data().items():
        (clone / "data/incoming" / name).write_bytes(content)


def run(hub: Path, job: str, branch: str = "main", cached: bool = True, **variables: str) -> Ran:
    """Do a job on a branch as it is after a merge into main, on a machine of its own."""
    clone = new_clone(hub)
    head = git(clone, "rev-parse", f"origin/{branch}").strip()
    git(clone, "merge", "--no-ff", "-qm", "Merge", head)
    link_environment(clone)
    place_data(clone)
    if cached:
        shutil.copytree(hub / "saved", clone / ".dvc/cache")
    values = {
        "github.base_ref": "main",
        "github.event.number": "7",
        "github.event.pull_request.head.sha": head,
        "github.repository": "us/normlab",
        "github.token": "secret",
    }
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "GITHUB_"))}
    environment = {
        "COMMENT": str(clone / "build/comment"),
        "DVC_GLOBAL_CONFIG_DIR": str(hub),
        "DVC_SYSTEM_CONFIG_DIR": str(hub),
        "GITHUB_REPOSITORY": "us/normlab",
        "PATH": f"{hub / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    return do_steps(job, clone, values, ours | environment | variables)


def push(hub: Path, branch: str, change: Callable[[Path], object]) -> None:
    """Commit a change of main's files on a branch."""
    clone = new_clone(hub)
    git(clone, "checkout", "-qb", branch)
    change(clone)
    git(clone, "commit", "-qam", branch)
    git(clone, "push", "-q", "origin", branch)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands in for GitHub: `origin.git`, and `saved` by a run on main.

    The project in it has a small budget, and the results that are committed are those of that run.
    """
    folder = tmp_path_factory.mktemp("hub")
    (folder / "bin").mkdir()
    (folder / "bin/gh").write_text('#!/bin/sh\n(echo "$GH_REPO" "$@" && cat "$5") > "$COMMENT"\n')
    (folder / "bin/gh").chmod(0o755)
    with verify.copied(ROOT) as project:
        verify.change_params(project / "params.yaml", BUDGET)
        git(project, "checkout", "-qb", "main")
        git(project, "add", ".")
        git(project, "commit", "-qm", "Begin")
        git(folder, "clone", "--quiet", "--bare", str(project), "origin.git")
    made = run(folder, "results", cached=False)
    assert (made.status, made.stages) == (0, ALL), made.printed
    shutil.copytree(made.clone / ".dvc/cache", folder / "saved")
    git(made.clone, "add", ".")
    git(made.clone, "commit", "-qm", "Commit the results")
    git(made.clone, "push", "-q", "origin", "HEAD:main")
    return folder


def document(clone: Path) -> None:
    with (clone / "README.md").open("a") as stream:
        stream.write("More to read.\n")


def penalize(clone: Path) -> None:
    verify.change_params(clone / "params.yaml", {"l1_lambda": 0.05})


def test_main_runs_nothing_whose_results_are_saved(hub: Path) -> None:
    ran = run(hub, "results")
    assert (ran.status, ran.stages) == (0, []), ran.printed


def test_a_change_of_documentation_trains_nothing(hub: Path) -> None:
    push(hub, "document", document)
    ran = run(hub, "report", "document")
    assert (ran.status, ran.stages) == (0, []), ran.printed
    assert ran.comment is not None
    call, title = ran.comment.splitlines()[:2]
    assert call == (
        "us/normlab pr comment 7 --body-file build/report.md --edit-last --create-if-none"
    )
    assert title == "## No change, against origin/main"
    assert "Stages that ran: none." in ran.comment


def test_a_change_of_the_penalty_trains_one_variant(hub: Path) -> None:
    push(hub, "penalize", penalize)
    ran = run(hub, "report", "penalize")
    assert (ran.status, ran.stages) == (0, ["evaluate", "plot", "train_bn_l1"]), ran.printed
    assert ran.comment is not None
    parts = [
        "## What changes, against origin/main",
        "| Batch norm + L1 | ",
        "Verdicts: ",
        "Stages that ran: train_bn_l1, evaluate, plot.",
        "| params.yaml | l1_lambda | 0.0001 | 0.05 |",
        "| reports/metrics.json | loss.bn_l1 | ",
        "### Figures\n\n| before | now |",
        "![accuracies](https://github.com/us/normlab/blob/",
    ]
    found = [ran.comment.find(part) for part in parts]
    assert -1 not in found, ran.comment
    assert found == sorted(found)
    others = re.findall(r"(?m)^\| (?:Group|Layer) norm \| .*$", ran.comment)
    assert [line.endswith("| no change |") for line in others] == [True, True]


def test_what_no_cache_has_is_made_again_where_it_is_needed(hub: Path) -> None:
    push(hub, "penalize-anew", penalize)
    ran = run(hub, "report", "penalize-anew", cached=False)
    assert (ran.status, ran.stages) == (0, ALL), ran.printed
    assert ran.comment is not None
    assert "Stages that ran: train_bn_l1, evaluate, plot." in ran.comment


def test_a_step_that_fails_fails_the_job_and_nothing_is_told(hub: Path) -> None:
    push(hub, "document-again", document)
    ran = run(hub, "report", "document-again", BASE="nonsense")
    assert ran.status != 0
    assert "error: BASE: got nonsense, allowed: " in ran.printed
    assert ran.comment is None
    push(hub, "break", lambda clone: verify.change_params(clone / "params.yaml", {"lr": "fast"}))
    ran = run(hub, "report", "break")
    assert ran.status != 0
    assert 'params.yaml: lr: got "fast"' in ran.printed
    assert ran.comment is None
