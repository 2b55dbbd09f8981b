"""What Git's history shows of a registration, on histories made up for it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stages import history
from tests.pipeline.copies import git
from tools.git import copy_history

PARAMS, TABLE = Path("params.yaml"), Path("reports/groups.csv")
SEEDS = [4_000_000_001, 4_000_000_002]
DIGEST = "0123456789abcdef"

Step = Callable[[Path], None]


def register(project: Path, digest: str = DIGEST) -> None:
    (project / PARAMS).write_text(f"groups:\n  registered: {{a: {digest}}}\n")


def forget(project: Path) -> None:
    (project / PARAMS).write_text("groups:\n  registered: {}\n")


def run_trials(project: Path, seeds: tuple[int, ...] = tuple(SEEDS)) -> None:
    (project / TABLE.parent).mkdir(exist_ok=True)
    rows = "".join(f"groups,gn,4,{seed},0.99\n" for seed in seeds)
    (project / TABLE).write_text(f"study,variant,gn_groups,seed,test_accuracy\n{rows}")


def explore(project: Path) -> None:
    run_trials(project, (0, 1))


def part(project: Path) -> None:
    run_trials(project, (SEEDS[1],))


def both(project: Path) -> None:
    register(project)
    run_trials(project)


def other(project: Path) -> None:
    (project / "other.txt").write_text("other")


def commit(project: Path, *steps: Step) -> None:
    """Make a repository with a commit for each step."""
    if not (project / ".git").exists():
        git(project, "init", "-q", "-b", "main")
    for step in steps:
        step(project)
        git(project, "add", ".")
        git(project, "commit", "-q", "--allow-empty", "-m", step.__name__)


def branch(project: Path, before: Step, beside: Step) -> None:
    """Commit results on a branch of their own after a step, and another step beside them."""
    commit(project, before)
    git(project, "checkout", "-q", "-b", "results")
    commit(project, run_trials)
    git(project, "checkout", "-q", "main")
    commit(project, beside)


def standing(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(project)
    return history.standing(DIGEST, PARAMS, SEEDS, TABLE)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([register, run_trials], "registered"),
        ([other, register, other, run_trials, other], "registered"),
        ([explore, register, run_trials], "registered"),
        ([register, part, run_trials], "registered"),
        # Not run yet, or not committed.
        ([register], "registered"),
        ([explore, register], "registered"),
        # Taken back for a while: what counts is when it was first there.
        ([register, forget, run_trials, register], "registered"),
        ([both], "post hoc"),
        ([run_trials, register], "post hoc"),
        ([part, register, run_trials], "post hoc"),
        ([explore], "post hoc"),
        ([forget, run_trials], "post hoc"),
        ([other], "post hoc"),
    ],
)
def test_one_line_of_history(
    steps: list[Step], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, *steps)
    assert standing(tmp_path, monkeypatch) == expected


def test_a_registration_that_is_not_committed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, forget)
    register(tmp_path)
    assert standing(tmp_path, monkeypatch) == "post hoc"


def test_results_on_another_branch_are_not_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch(tmp_path, other, beside=register)
    assert standing(tmp_path, monkeypatch) == "registered"  # of what this branch knows
    git(tmp_path, "merge", "-q", "-m", "Merge", "results")
    assert standing(tmp_path, monkeypatch) == "post hoc"


def test_a_merge_of_results_that_follow_it_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch(tmp_path, register, beside=other)
    git(tmp_path, "merge", "-q", "--no-ff", "-m", "Merge", "results")
    assert standing(tmp_path, monkeypatch) == "registered"


@pytest.mark.parametrize(
    ("depth", "expected"), [(1, "cannot be seen"), (2, "cannot be seen"), (3, "registered")]
)
def test_a_shallow_clone_says_what_it_cannot_see(
    depth: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the commit before the registration, it sees that this is where it came."""
    (tmp_path / "whole").mkdir()
    commit(tmp_path / "whole", other, other, register, run_trials)
    words = ["--depth", str(depth), f"file://{tmp_path}/whole", str(tmp_path / "shallow")]
    git(tmp_path, "clone", "-q", *words)
    assert standing(tmp_path / "shallow", monkeypatch) == expected
    git(tmp_path / "shallow", "fetch", "-q", "--unshallow")
    assert standing(tmp_path / "shallow", monkeypatch) == "registered"


def test_without_a_history_nothing_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert standing(tmp_path, monkeypatch) == "cannot be seen"
    git(tmp_path, "init", "-q")
    assert standing(tmp_path, monkeypatch) == "cannot be seen"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git"], check=False)
    assert standing(tmp_path, monkeypatch) == "cannot be seen"


@pytest.mark.parametrize(("depth", "expected"), [(2, "cannot be seen"), (4, "registered")])
def test_a_copy_sees_as_much_as_what_it_is_of(
    depth: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "copy"):
        (tmp_path / name).mkdir()
    commit(tmp_path / "whole", other, other, register, run_trials)
    words = ["--depth", str(depth), f"file://{tmp_path}/whole", str(tmp_path / "clone")]
    git(tmp_path, "clone", "-q", *words)
    git(tmp_path / "copy", "init", "-q")
    (tmp_path / "copy/mine.txt").write_text("mine")
    copy_history(tmp_path / "clone", tmp_path / "copy")
    assert standing(tmp_path / "copy", monkeypatch) == expected
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {".git", "mine.txt"}
