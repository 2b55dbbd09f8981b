"""The workflows as they stand: what their steps are, when they run, and what they may do."""

import re
from typing import Any

from normlab.params import mapping
from tools import verify

ROOT = verify.ROOT
WORKFLOWS = {path.stem: mapping(path) for path in (ROOT / ".github/workflows").iterdir()}
JOBS: dict[str, Any] = WORKFLOWS["ci"]["jobs"]
ALL_JOBS = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
STEPS = [step for job in ALL_JOBS for step in job["steps"]]


def test_every_step_is_a_pinned_action_or_a_make_target() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in actions)
    commands = [step["run"].split() for step in STEPS if "uses" not in step]
    assert [command for command in commands if command not in [["make", t] for t in targets]] == []
    assert {"lint", "test", "verify", "repro", "audit", "sbom"} <= {t for _, t in commands}


def test_only_the_report_may_write_and_only_comments() -> None:
    assert all(one["permissions"] == {"contents": "read"} for one in WORKFLOWS.values())
    extra = [job["permissions"] for job in ALL_JOBS if "permissions" in job]
    assert extra == [JOBS["report"]["permissions"]]
    assert extra == [{"contents": "read", "pull-requests": "write"}]
    checkouts = [step["with"] for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(ALL_JOBS)
    assert all(options["persist-credentials"] is False for options in checkouts)
    assert set(WORKFLOWS["ci"]["on"]) == {"push", "pull_request"}
    assert set(WORKFLOWS["audit"]["on"]) == {"push", "pull_request", "schedule"}
    # What a pull request's author has written must not become part of a command.
    assert not any("${{" in step.get("run", "") for step in STEPS)


def test_a_change_of_a_lock_file_is_verified_and_audited() -> None:
    """Before it is merged, on every system; what is in no filter runs on every change."""
    assert WORKFLOWS["ci"]["on"]["pull_request"] is None
    assert "if" not in JOBS["verify"]
    for event in ("push", "pull_request"):
        assert "requirements*.lock" in WORKFLOWS["audit"]["on"][event]["paths"]
    recipe = (ROOT / "Makefile").read_text().partition("\nlock:  ##")[2].partition("\n\n")[0]
    assert recipe.splitlines()[-1] == "\t$(MAKE) verify BUDGET=small"


def test_every_supported_python_is_tested_and_other_machines_verify() -> None:
    supported = (ROOT / "tools/supported.py").read_text()
    pythons = re.findall(r'"(3\.\d+)"', supported)
    assert JOBS["test"]["strategy"]["matrix"]["python"] == pythons
    machines = JOBS["verify"]["strategy"]["matrix"]["include"]
    assert [m["os"] for m in machines] == ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"]
    assert {m["python"] for m in machines} <= set(pythons)
    assert all(job["timeout-minutes"] <= 60 for job in ALL_JOBS)


def test_the_environment_is_cached_by_the_locks() -> None:
    for job in ALL_JOBS:
        options = [step["with"] for step in job["steps"] if "with" in step]
        (cache,) = [own for own in options if own.get("path") == "~/.cache/uv"]
        assert "hashFiles('requirements*.lock')" in cache["key"]
        assert "restore-keys" not in cache


def test_what_has_been_run_is_kept_however_a_job_ends() -> None:
    """Under another name then, which the next run of the same takes before any other."""
    for name in ("results", "report"):
        steps = {
            step.get("uses", step.get("run")).split("@")[0]: step for step in JOBS[name]["steps"]
        }
        restore, save = (steps[f"actions/cache/{of}"] for of in ("restore", "save"))
        assert restore["with"]["path"].split() == [".dvc/cache", "checkpoints"]
        assert save["with"]["path"] == restore["with"]["path"]
        assert restore["with"]["restore-keys"].split("\n")[0] == restore["with"]["key"]
        assert save["with"]["key"].startswith("${{ steps.results.outputs.cache-primary-key }}")
        assert save["if"].startswith("always() && ")
        order = list(steps)
        assert order.index("actions/cache/save") > order.index("make ci-restore")


def test_only_main_may_write_to_the_remote() -> None:
    secrets = {
        name: set(re.findall(r"secrets\.(\w+)", str(job["steps"]))) for name, job in JOBS.items()
    }
    assert {name for name, found in secrets.items() if found} == {"results", "report"}
    assert secrets["report"] == {"REMOTE", "REMOTE_READ_KEY_ID", "REMOTE_READ_KEY"}
    assert JOBS["results"]["if"] == "github.event_name == 'push'"
    assert JOBS["results"]["environment"] == "results"
    assert "make ci-save" not in {step.get("run") for step in JOBS["report"]["steps"]}
