"""The studies: the real commands on a small budget, from nothing to the report."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from dvc.repo import Repo
from markupsafe import escape
from ruamel.yaml import YAML

from normlab import params, studies
from normlab.errors import InputError, exit_on_input_error
from normlab.evidence import evaluation
from normlab.training import trials
from stages import judge, score, study
from tests.pipeline.copies import (
    Recorder,
    change,
    clone_of,
    git,
    leave_out,
    link_environment,
    make,
    run,
    stages_run,
)

STUDIES = ["norms", "groups", "l1", "batch_size", "reference"]
pytestmark = pytest.mark.timeout(3600)

BUDGET: dict[str, dict[str, object]] = {
    name: {"seeds": 2, "epochs": 1, "train_size": 300, "registered": {}} for name in STUDIES
}
BUDGET["batch_size"]["over"] = {"batch_size": [2, 32]}  # those that claims compare


def everything(project: Path) -> list[str]:
    """Run all that there is, in order; return the stages that ran."""
    runs = [["repro"], ["--cd", "studies", "repro"], ["repro", "reports/dvc.yaml"]]
    return [name for words in runs for name in stages_run(run(project, "dvc", *words))]


@pytest.fixture(scope="module")
def project(template: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with its pipeline run; then all else, once from nothing."""
    folder = tmp_path_factory.mktemp("studies")
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
    leave_out(folder)
    change(folder / "studies/params.yaml", BUDGET)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
        ran = everything(folder)
    assert sorted(ran) == sorted(
        [
            *("download@mnist", *STUDIES, *(f"score@{name}" for name in STUDIES), "judge"),
            "reports/dvc.yaml:report",
        ]
    )
    run(folder, "python", "-m", "tools.headline")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Run")
    return folder


@pytest.fixture
def committed(project: Path) -> Iterator[Path]:
    """The project, put back afterwards."""
    yield project
    git(project, "checkout", ".")
    run(project, "dvc", "checkout")
    run(project, "dvc", "--cd", "studies", "checkout")


@pytest.mark.parametrize("name", STUDIES)
def test_a_table_has_a_row_for_each_trial(name: str, project: Path) -> None:
    base = params.load(project / "params.yaml")
    own = studies.load(project / "studies/params.yaml")
    arms = studies.arms(own, name, base)
    rows = pd.DataFrame([arm.columns | {"seed": s} for arm in arms for s in (0, 1)])
    expected = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    table = pd.read_csv(project / f"studies/reports/{name}.csv")
    pd.testing.assert_frame_equal(table[[*expected]], expected)
    measures = {*table.columns[len(expected.columns) :]}
    kinds = ["test", "unseen", *(["seen"] if own[name].folds else [])]
    scored = {f"{kind}_{of}" for kind in ("val", *kinds) for of in ("accuracy", "loss")}
    others = {"parameters", "small_weights", "log_val_loss", "epochs_to_99", "easier"}
    assert measures == scored | others | ({"optimism"} if own[name].folds else set())
    # So short a training need not get to 99 %.
    assert table[[*measures - {"epochs_to_99"}]].notna().all(axis=None)
    history = pd.read_csv(project / f"studies/reports/{name}_history.csv")
    pd.testing.assert_frame_equal(history[[*expected]], expected)
    assert history["val_accuracy"].tolist() == table["val_accuracy"].tolist()
    weights = list((project / f"studies/models/{name}").rglob("*.safetensors"))
    assert len(weights) == len(expected)
    assert not (project / f"studies/checkpoints/{name}").exists()


def test_images_are_scored_apart_by_what_a_trial_has_learnt_from(project: Path) -> None:
    """Of 4,000: in a fold others are set apart, and all but 300 are unseen."""
    table = pd.read_csv(project / "studies/reports/reference.csv")
    for kind, count in {"test": 500, "unseen": 3700, "seen": 300}.items():
        right = table[f"{kind}_accuracy"] * count
        assert right.tolist() == pytest.approx(right.round().tolist(), abs=0.01), kind
    less = table["seen_accuracy"] - table["unseen_accuracy"]
    assert table["optimism"].tolist() == pytest.approx(less.tolist(), abs=1e-5)
    less = table["test_accuracy"] - table["unseen_accuracy"]
    assert table["easier"].tolist() == pytest.approx(less.tolist(), abs=1e-5)


def test_trials_that_two_studies_share_are_trained_once(project: Path) -> None:
    models = project / "studies/models"
    for theirs, ours in {"norms/gn": "groups/four", "norms/bn": "l1/zero"}.items():
        for model in (models / theirs).iterdir():
            assert (models / ours / model.name).read_bytes() == model.read_bytes()
        both = []
        for place in (theirs, ours):
            study, arm = place.split("/")
            history = pd.read_csv(project / f"studies/reports/{study}_history.csv")
            both.append(history[history["arm"] == arm][["seed", "epoch", "weights", "val_loss"]])
        first, second = (table.reset_index(drop=True) for table in both)
        pd.testing.assert_frame_equal(first, second)


@pytest.mark.usefixtures("_first_images")
def test_an_arm_trained_otherwise_elsewhere_is_refused(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(committed / "studies")
    for changed in ({"epochs": 2}, {"train_size": 299}, {"recipe": {"lr": 0.1}}):
        change(committed / "studies/params.yaml", {"groups": BUDGET["groups"] | changed})
        with pytest.raises(InputError) as refused:
            study.main("groups")
        assert str(refused.value) == (
            "params.yaml: groups.arms.four: got an arm trained otherwise than norms.gn, allowed: "
            "the same data set, images and recipe"
        )
        git(committed, "checkout", ".")


@pytest.mark.parametrize("name", STUDIES)
def test_a_summary_has_a_row_for_each_arm_and_measure(name: str, project: Path) -> None:
    table = pd.read_csv(project / f"studies/reports/{name}.csv")
    summary = pd.read_csv(project / f"studies/reports/{name}_summary.csv")
    named = [*table.columns[: list(table.columns).index("seed")]]
    means = table.groupby(named, sort=False, dropna=False)["test_accuracy"].mean()
    rows = summary[summary["measure"] == "test_accuracy"]
    assert rows["mean"].tolist() == pytest.approx(means.tolist(), rel=1e-5)
    assert set(rows["seeds"]) == {2}
    measures = table.columns[len(named) + 1 :]
    assert summary["measure"].tolist() == [*measures] * len(means)


def test_findings_and_page_are_there(project: Path) -> None:
    findings = pd.read_csv(project / "studies/reports/findings.csv")
    declared = YAML(typ="safe").load(project / "studies/claims.yaml")["claims"]
    assert findings["name"].tolist() == list(declared)
    metrics = json.loads((project / "studies/reports/findings.json").read_text())
    assert list(metrics["effect"]) == list(declared)
    short = (project / "reports/README.md").read_text()
    assert all(sentence in short for sentence in findings["sentence"])
    page = (project / "reports/report.html").read_text()
    assert all(escape(claim["claim"]) in page for claim in declared.values())


def test_nothing_runs_again(project: Path) -> None:
    assert everything(project) == []
    assert git(project, "status", "--porcelain") == ""


def test_the_pipeline_does_without_the_studies(committed: Path) -> None:
    change(committed / "studies/params.yaml", {"groups": {"epochs": 2}})
    assert stages_run(run(committed, "dvc", "repro")) == []


def test_a_section_of_parameters_changes_exactly_its_study(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(committed / "studies")
    path = committed / "studies/params.yaml"
    before = path.read_text()
    for name in STUDIES:
        change(path, {name: {"epochs": 7}})
        with Repo(".") as repo:
            found = {*repo.status()}
        also = {"groups", "l1"} if name == "norms" else set()
        assert found == {one for own in also | {name} for one in (own, f"score@{own}")} | {"judge"}
        path.write_text(before)


class StoppedError(Exception):
    """Raised in place of training."""


@pytest.mark.usefixtures("_first_images")
@pytest.mark.parametrize("script", [study, score])
def test_params_are_the_keys_read(
    committed: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.chdir(committed / "studies")
    monkeypatch.setattr(trials, "run", stop)
    monkeypatch.setattr(evaluation, "score_apart", stop)
    base, own = params.load(study.PARAMS), studies.load(study.OWN)
    read = {}
    for name in STUDIES:
        asked, sections = Recorder(base), set[str]()

        class Sections(dict[str, studies.Study]):
            def __getitem__(self, key: str) -> studies.Study:
                sections.add(key)  # noqa: B023
                return super().__getitem__(key)

        monkeypatch.setattr(params, "load", lambda _, asked=asked: asked)
        found = Sections(own)
        monkeypatch.setattr(studies, "load", lambda _, found=found: found)
        with pytest.raises(StoppedError):
            script.main(name)
        assert sections == {name} | ({"norms"} if name in ("groups", "l1") else set())
        read[name] = asked.read, sections
    every = set[str]().union(*(of_base for of_base, _ in read.values()))
    for name in STUDIES:
        with Repo(".") as repo:
            stage = repo.stage.load_one(name=name if script is study else f"score@{name}")
        declared = {Path(p.fs_path).parent.name: set(p.params) for p in stage.params}
        of_base, sections = read[name]
        # All scores are declared in one, and so declare what some of them read.
        of_base = every if script is score else of_base
        assert declared == {"studies": sections, committed.name: of_base}


def test_forced_again_on_another_cluster_the_lock_and_the_reports_stay(committed: Path) -> None:
    again = ["norms", "score@norms", "judge"]
    ran = run(committed, "dvc", "--cd", "studies", "repro", "--force", "--single-item", *again)
    assert stages_run(ran) == again
    ran = run(committed, "dvc", "repro", "--force", "--single-item", "reports/dvc.yaml:report")
    assert stages_run(ran) == ["reports/dvc.yaml:report"]
    assert git(committed, "status", "--porcelain") == ""


def test_a_killed_study_goes_on(committed: Path) -> None:
    change(committed / "studies/params.yaml", {"norms": {"train_size": 3000}})
    command = ["--cd", "studies", "repro", "--single-item", "norms"]
    process = subprocess.Popen(
        [".venv/bin/dvc", *command],
        cwd=committed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    saved = committed / "studies/checkpoints/norms"
    while len(list(saved.rglob("seed*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list(saved.rglob("seed*.safetensors")))
    assert 3 <= kept < 8

    (committed / "studies/.dvc/tmp/rwlock").unlink(missing_ok=True)
    resumed = run(committed, "dvc", *command)
    (done,) = set(re.findall(r"(\d+)/8 \[00:00<\?", resumed.stderr))
    assert int(done) == kept
    assert not saved.exists()


def test_one_seed_is_too_few_to_judge_and_costs_nothing(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(committed / "studies")
    path = committed / "studies/reports/l1.csv"
    table = pd.read_csv(path)
    table[table["seed"] == 0].to_csv(path, index=False)
    before = (committed / "studies/reports/findings.json").read_bytes()
    with pytest.raises(SystemExit) as refused, exit_on_input_error():
        judge.main()
    assert refused.value.code == ("error: claims.yaml: l1.seeds: got 1 seed, allowed: at least 2")
    assert (committed / "studies/reports/findings.json").read_bytes() == before


@pytest.mark.parametrize(
    ("of", "changed", "last"),
    [(".", "l1_lambda=0.1", "plot"), ("studies", "batch_size.epochs=2", "judge")],
)
@pytest.mark.usefixtures("elsewhere")
def test_every_command_works_without_a_target(
    project: Path, tmp_path: Path, of: str, changed: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's where the studies, whose results are in Git, have not been run; and theirs."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    for place, (key, value) in enumerate([("user.name", "t"), ("user.email", "t@example.org")]):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{place}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{place}", value)
    clone = clone_of(project, tmp_path, with_studies=of == "studies")
    # Git's hooks look for `dvc` there.
    monkeypatch.setenv("PATH", f"{clone}/.venv/bin{os.pathsep}{os.environ['PATH']}")
    folder = clone / of
    dvc = partial(run, clone, "dvc", "--cd", of)
    assert "up to date" in dvc("status").stdout
    assert "No changes" in dvc("data", "status").stdout
    dvc("checkout")
    dvc("commit")
    dvc("exp", "save", "--name", "saved")
    dvc("exp", "branch", "saved", "kept")
    dvc("exp", "run", "--name", "tried", "-S", changed)
    git(clone, "checkout", "-q", ".")
    dvc("checkout")
    dvc("exp", "apply", "tried")
    git(clone, "checkout", "-q", ".")
    dvc("checkout")
    dvc("exp", "remove", "saved", "tried")
    dvc("repro", "--force", "--single-item", last)
    dvc("remote", "add", "--default", "--local", "store", str(tmp_path / "remote"))
    dvc("push")
    shutil.rmtree(folder / "models")
    shutil.rmtree(folder / ".dvc/cache")
    dvc("pull")
    assert any((folder / "models").rglob("*.safetensors"))
    dvc("gc", "--workspace", "--force")
    dvc("install")
    git(clone, "checkout", "-q", "kept")
    git(clone, "checkout", "-q", "-")
    for hook in ("post-checkout", "pre-commit", "pre-push"):
        (clone / ".git/hooks" / hook).unlink()
    git(clone, "branch", "-q", "-D", "kept")
    for one in {of, "."}:
        assert "up to date" in run(clone, "dvc", "--cd", one, "status").stdout
    assert git(clone, "status", "--porcelain") == ""


def test_the_report_is_made_of_what_is_there_and_says_what_was_not_rerun(
    project: Path, tmp_path: Path
) -> None:
    clone = clone_of(project, tmp_path, with_studies=False)
    shutil.rmtree(clone / ".dvc/cache")
    shutil.rmtree(clone / "models")
    (clone / ".venv").unlink()
    link_environment(clone)
    said = make(clone, "report").stdout
    assert re.findall("^Running stage '(.+)'", said, re.MULTILINE) == []
    assert "studies: as they were, nothing to rerun\n" in said
    assert git(clone, "status", "--porcelain") == ""
    change(clone / "studies/params.yaml", {"groups": {"epochs": 2}})
    said = make(clone, "report").stdout
    assert re.findall("^Running stage '(.+)'", said, re.MULTILINE) == ["reports/dvc.yaml:report"]
    assert "not rerun, though changed: groups, score@groups, judge; `make studies` does\n" in said
