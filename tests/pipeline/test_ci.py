"""The workflow as it stands: what its steps are, and two of its jobs done here, step by step."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from normlab.params import mapping
from tests.pipeline.test_ci_report import git, link_environment
from tools import verify

ROOT = verify.ROOT
FILE = ROOT / ".github/workflows/ci.yml"
WORKFLOW = mapping(FILE)
JOBS: dict[str, Any] = WORKFLOW["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")
BUDGET = {"seeds": [0, 1], "epochs": 1, "val_size": 500, "train_size": 500}
ALL = ["download", "evaluate", "plot", "train_bn_l1", "train_gn", "train_ln"]
# A limit for what hangs, not for what is slow.
pytestmark = pytest.mark.timeout(3600)


def test_every_step_is_a_pinned_action_or_a_make_target() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    assert all(
        re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for _, step in STEPS if "uses" in step
    )
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
        (cache,) = [
            s["with"] for s in job["steps"] if s.get("with", {}).get("path") == "~/.cache/uv"
        ]
        assert "hashFiles('requirements.lock', 'requirements-dev.lock')" in cache["key"]
        assert "restore-keys" not in cache


class Ran(NamedTuple):
    """What a job has said, its exit status, and the arguments of `gh` if it has commented."""

    status: int
    said: str
    stages: list[str]
    comment: str | None
    clone: Path


class Hub:
    """Stands in for GitHub: a repository, the cache of results, a machine for every job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin, self.cache = folder, folder / "origin.git", folder / "cache"
        self.count = 0
        tools = folder / "bin"
        tools.mkdir()
        (tools / "gh").write_text(
            '#!/bin/sh\necho "$GH_REPO" "$@" > "$COMMENT"\ncat "$6" >> "$COMMENT"\n'
        )
        (tools / "gh").chmod(0o755)

    def run(self, job: str, branch: str = "main", cached: bool = True, **changes: str) -> Ran:
        """Do the steps of a job on a branch, merged into main if it is another."""
        self.count += 1
        clone = self.folder / f"clone{self.count}"
        git(self.folder, "clone", "--quiet", str(self.origin), str(clone))
        head = git(clone, "rev-parse", f"origin/{branch}").strip()
        git(clone, "merge", "--no-ff", "-qm", "Merge", head)
        link_environment(clone)
        verify.place_data(ROOT, clone / "data/incoming")
        values = {
            "github.base_ref": "main",
            "github.event.number": "7",
            "github.event.pull_request.head.sha": head,
            "github.repository": "us/normlab",
            "github.token": "secret",
        }
        comment = clone / "build/comment"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "GITHUB_"))}
        environment |= {
            "COMMENT": str(comment),
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder),
            "DVC_SYSTEM_CONFIG_DIR": str(self.folder),
            "GITHUB_REPOSITORY": "us/normlab",
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        status, said = 0, ""
        for step in JOBS[job]["steps"]:
            if step.get("with", {}).get("path") == ".dvc/cache" and cached and self.cache.exists():
                shutil.copytree(self.cache, clone / ".dvc/cache")
            if "run" not in step or status:
                continue
            own = {
                name: EXPRESSION.sub(lambda match: values[match[1]], text)
                for name, text in step.get("env", {}).items()
            }
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]],
                cwd=clone,
                env=environment | own | changes,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            status, said = done.returncode, said + done.stdout
        if job == "results" and not status:
            shutil.rmtree(self.cache, ignore_errors=True)
            shutil.copytree(clone / ".dvc/cache", self.cache)
        ran = re.findall(r"(?m)^Running stage '(.*)':$", said)
        told = comment.read_text() if comment.exists() else None
        return Ran(status, said, sorted(set(ran)), told, clone)

    def push(self, branch: str, change: Callable[[Path], object]) -> None:
        """Commit a change of main's files on a branch."""
        self.count += 1
        clone = self.folder / f"clone{self.count}"
        git(self.folder, "clone", "--quiet", str(self.origin), str(clone))
        git(clone, "checkout", "-qb", branch)
        change(clone)
        git(clone, "commit", "-qam", branch)
        git(clone, "push", "-q", "origin", branch)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """The project with a small budget; its results are those that CI has made on main."""
    folder = tmp_path_factory.mktemp("hub")
    hub = Hub(folder)
    with verify.copied(ROOT) as project:
        verify.change_params(project / "params.yaml", BUDGET)
        git(project, "checkout", "-qb", "main")
        git(project, "add", ".")
        git(project, "commit", "-qm", "Begin")
        git(folder, "clone", "--quiet", "--bare", str(project), str(hub.origin))
    made = hub.run("results")
    assert made.status == 0, made.said
    assert made.stages == ALL
    git(made.clone, "add", ".")
    git(made.clone, "commit", "-qm", "Commit the results")
    git(made.clone, "push", "-q", "origin", "HEAD:main")
    return hub


def document(clone: Path) -> None:
    with (clone / "README.md").open("a") as stream:
        stream.write("More to read.\n")


def penalize(clone: Path) -> None:
    verify.change_params(clone / "params.yaml", {"l1_lambda": 0.05})


def test_main_runs_nothing_whose_results_are_saved(hub: Hub) -> None:
    ran = hub.run("results")
    assert (ran.status, ran.stages) == (0, []), ran.said


def test_a_change_of_documentation_trains_nothing(hub: Hub) -> None:
    hub.push("document", document)
    ran = hub.run("report", "document")
    assert (ran.status, ran.stages) == (0, []), ran.said
    assert ran.comment is not None
    call, title = ran.comment.splitlines()[:2]
    assert call == (
        "us/normlab pr comment 7 --body-file build/report.md --edit-last --create-if-none"
    )
    assert title == "## No change, against origin/main"
    assert "Stages that ran: none." in ran.comment


def test_a_change_of_the_penalty_trains_one_variant(hub: Hub) -> None:
    hub.push("penalize", penalize)
    ran = hub.run("report", "penalize")
    assert (ran.status, ran.stages) == (0, ["evaluate", "plot", "train_bn_l1"]), ran.said
    assert ran.comment is not None
    parts = [
        "## What changes, against origin/main",
        "| Batch norm + L1 | ",
        "Verdicts: ",
        "Stages that ran: train_bn_l1, evaluate, plot.",
        "| params.yaml | l1_lambda | 0.0001 | 0.05 |",
        "| reports/metrics.json | loss.bn_l1 | ",
        "![accuracies](https://github.com/us/normlab/blob/",
    ]
    found = [ran.comment.find(part) for part in parts]
    assert -1 not in found, ran.comment
    assert found == sorted(found)
    others = [
        line for line in ran.comment.splitlines() if re.match(r"\| (Group|Layer) norm \|", line)
    ]
    assert len(others) == 2
    assert all(line.endswith("| no change |") for line in others)


def test_what_no_cache_has_is_made_again_where_it_is_needed(hub: Hub) -> None:
    hub.push("penalize-anew", penalize)
    ran = hub.run("report", "penalize-anew", cached=False)
    assert (ran.status, ran.stages) == (0, ALL), ran.said
    assert ran.comment is not None
    assert "Stages that ran: train_bn_l1, evaluate, plot." in ran.comment


def test_a_step_that_fails_fails_the_job_and_nothing_is_told(hub: Hub) -> None:
    hub.push("document-again", document)
    ran = hub.run("report", "document-again", BASE="nonsense")
    assert ran.status != 0
    assert "error: BASE: got nonsense, allowed: " in ran.said
    assert ran.comment is None
    hub.push("break", lambda clone: verify.change_params(clone / "params.yaml", {"lr": "fast"}))
    ran = hub.run("report", "break")
    assert ran.status != 0
    assert 'params.yaml: lr: got "fast"' in ran.said
    assert ran.comment is None
