"""Two jobs of the workflow as it stands, done here, step by step."""

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
from tests.pipeline.copies import first, git, link_environment, make, pin
from tools import verify

ROOT = verify.ROOT
JOBS: dict[str, Any] = mapping(ROOT / ".github/workflows/ci.yml")["jobs"]
EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")
BUDGET = {"seeds": [0, 1], "epochs": 1, "val_size": 500, "train_size": 500, "l1_lambda": 1e-4}
ALL = ["download", "evaluate", "plot", "train_bn_l1", "train_gn", "train_ln"]
# A limit for what hangs, not for what is slow.
pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("all_elsewhere")]


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
    """Do the steps of a job that are commands; after one that fails, only what always is done."""
    status, printed = 0, ""
    for step in JOBS[job]["steps"]:
        if "run" not in step or (status and step.get("if") != "always()"):
            continue
        own = {
            name: EXPRESSION.sub(lambda match: values.get(match[1], ""), text)
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
        status, printed = status or done.returncode, printed + done.stdout
    stages = sorted(set(re.findall(r"(?m)^Running stage '(.*)':$", printed)))
    comment = clone / "build/comment"
    told = comment.read_text() if comment.exists() else None
    return Ran(clone, status, printed, stages, told)


def place_data(clone: Path) -> None:
    """Put the data where a person does: less to wait for, and in the lock of every clone alike."""
    for name, content in first().items():
        (clone / "data/incoming" / name).write_bytes(content)


def run(
    hub: Path,
    job: str,
    branch: str = "main",
    cached: bool = True,
    remote: Path | str = "",
    **variables: str,
) -> Ran:
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
        "secrets.REMOTE": str(remote),
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
        pin(project, first())
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
        "![misclassified_bn_l1](https://github.com/us/normlab/blob/",
    ]
    found = [ran.comment.find(part) for part in parts]
    assert -1 not in found, ran.comment
    assert found == sorted(found)
    others = re.findall(r"(?m)^\| (?:Group|Layer) norm \| .*$", ran.comment)
    assert [line.endswith("| no change |") for line in others] == [True, True]


def test_a_remote_has_what_no_runner_has(hub: Path) -> None:
    """What main has computed, and, by whoever ran it, what nobody has committed."""
    store = hub / "store"
    assert run(hub, "results", remote=store).stages == []
    files = sorted(store.rglob("*"))
    push(hub, "penalize-more", penalize)
    ran = run(hub, "report", "penalize-more", cached=False, remote=store)
    assert ran.stages == ["evaluate", "plot", "train_bn_l1"]
    assert (ran.clone / "models/gn/seed1/epoch01.safetensors").exists()
    assert sorted(store.rglob("*")) == files
    assert make(ran.clone, "push").returncode == 0
    ran = run(hub, "report", "penalize-more", cached=False, remote=store)
    assert (ran.status, ran.stages) == (0, []), ran.printed


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
