"""The studies: their grids, and the real commands on a small budget, from nothing to the report."""

import json
import os
import re
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
from torch import nn

from normlab import params, studies
from normlab.data import augment
from normlab.errors import InputError, exit_on_input_error
from normlab.evidence import evaluation
from normlab.network import networks
from normlab.training import trials
from stages import judge, score, study
from tests.pipeline.test_pipeline import Recorder, copy, git, run, set_params, stages_run

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "studies/params.yaml"
STUDIES = list(studies.STUDIES)
pytestmark = pytest.mark.timeout(3600)

BUDGET = {
    f"{name}_{key}": value
    for name in STUDIES
    for key, value in {"seeds": "[0, 1]", "epochs": "1", "train_size": "300"}.items()
}


@pytest.fixture
def base() -> params.Params:
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def own() -> studies.Settings:
    return params.load(COMMITTED, studies.Settings)


def test_the_committed_file_is_valid_and_complete(own: studies.Settings) -> None:
    assert own.model_dump() == YAML(typ="safe").load(COMMITTED)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("groups", "[]", "[]"),
        ("groups", "[4]", "[4]"),
        ("groups", "[2, 1]", "[2, 1]"),
        ("groups", "[0, 1]", "[0, 1]"),
        ("groups_seeds", "[1, 1]", "[1, 1]"),
        ("l1_lambdas", "[0, 0]", "[0, 0]"),
        ("l1_lambdas", "[-1, 0]", "[-1, 0]"),
        ("l1_epochs", "0", "0"),
        ("layer_norm_train_size", "60001", "60001"),
        ("batch_sizes", "[2, 60001]", "[2, 60001]"),
        ("replication_gn_groups", "[3, 4]", "[3, 4]"),
        ("replication_momentum", "1", "1"),
        ("replication_affine_scale", "[2, 1]", "[2, 1]"),
    ],
)
def test_a_bad_value_gets_one_line(tmp_path: Path, key: str, value: str, shown: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text())
    set_params(path, {key: value})
    with pytest.raises(InputError) as refused:
        params.load(path, studies.Settings)
    allowed = studies.Settings.model_fields[key].description
    assert str(refused.value) == f"{path}: {key}: got {shown}, allowed: {allowed}"


@pytest.mark.parametrize("name", STUDIES)
def test_arms_have_names_of_their_own_and_change_what_there_is(
    name: str, base: params.Params, own: studies.Settings
) -> None:
    arms = studies.arms(name, own, base)
    assert len({arm.name for arm in arms}) == len(arms)
    for arm in arms:
        assert set(arm.factors) <= set(params.Params.model_fields)
        assert arm.factors == arms[0].factors
        assert set(arm.changes) <= set(params.Params.model_fields)
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        assert recipe.epochs == getattr(own, f"{name}_epochs")


def test_the_arms_are_those_asked_for(base: params.Params, own: studies.Settings) -> None:
    named = {name: [s.name for s in studies.arms(name, own, base)] for name in STUDIES}
    assert named["groups"] == ["1", "2", "3", "4", "7", "16"]
    assert named["l1"] == ["0", "1e-05", "0.0001", "0.001", "0.01"]
    assert named["layer_norm"] == ["bn", "gn", "ln_channel", "ln_elementwise"]
    sizes = (2, 4, 8, 16, 32, 128)
    assert named["batch_size"] == [f"{v}_{size}" for v in ("bn", "gn", "ln") for size in sizes]
    assert named["replication"] == ["bn_l1", "gn", "ln"]


def test_the_learning_rate_is_in_proportion_to_the_batch_size(
    base: params.Params, own: studies.Settings
) -> None:
    for arm in studies.arms("batch_size", own, base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        assert recipe.lr / recipe.batch_size == pytest.approx(base.lr / base.batch_size)
        assert not recipe.l1_lambda


def test_the_replication_is_the_references_recipe(
    base: params.Params, own: studies.Settings
) -> None:
    """The figures of the write-up "Session 3 - PyTorch" (Team 6)."""
    for arm in studies.arms("replication", own, base):
        recipe = trials.recipe_of(arm.variant, partial(arm.value, base))
        learner = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum, recipe.nesterov)
        assert learner == (20, 128, 0.015, 0.7, False)
        schedule = (recipe.lr_schedule, recipe.lr_step_epochs, recipe.lr_step_factor)
        assert schedule == ("step", 9, 0.1)
        assert recipe.augmentation == augment.Ranges(7, 0.15, (0.7, 1.3), 8)
        assert recipe.l1_lambda == (0.01 if arm.variant == "bn_l1" else None)
        network = networks.build(arm.variant, **recipe.norm_params)
        if arm.variant == "gn":
            groups = [m.num_groups for m in network if isinstance(m, nn.GroupNorm)]
            assert groups == [3, 4, 2, 3, 2, 2, 2]
        if arm.variant == "ln":
            assert sum(networks.parameters_by_layer(network).values()) == 55_546


def everything(project: Path, *options: str) -> list[str]:
    return stages_run(
        run(project, "dvc", "repro", *options, "studies/dvc.yaml", "reports/dvc.yaml")
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, all of it run once from nothing."""
    folder = tmp_path_factory.mktemp("studies")
    copy(folder)
    set_params(folder / "studies/params.yaml", BUDGET)
    ran = everything(folder)
    assert set(ran) == {
        *("download", "train_bn_l1", "train_gn", "train_ln", "evaluate", "plot"),
        *(f"studies/dvc.yaml:{name}" for name in STUDIES),
        *(f"studies/dvc.yaml:score_{name}" for name in STUDIES),
        "studies/dvc.yaml:judge",
        "reports/dvc.yaml:report",
    }
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Run")
    return folder


@pytest.fixture
def committed(project: Path) -> Iterator[Path]:
    """The project, put back afterwards."""
    yield project
    git(project, "checkout", ".")
    run(project, "dvc", "checkout")


@pytest.mark.parametrize("name", STUDIES)
def test_a_table_has_a_row_for_each_trial(name: str, project: Path) -> None:
    base = params.load(project / "params.yaml")
    own = params.load(project / "studies/params.yaml", studies.Settings)
    arms = studies.arms(name, own, base)
    expected = pd.DataFrame([arm.columns | {"seed": s} for arm in arms for s in (0, 1)])
    table = pd.read_csv(project / f"reports/studies/{name}.csv")
    pd.testing.assert_frame_equal(table[[*expected]], expected, check_dtype=False)
    before = "train_eval" if name == "replication" else "val"
    measures = [*table.columns[len(expected.columns) :]]
    assert {f"{before}_accuracy", f"{before}_loss", "test_accuracy", "test_loss"} <= {*measures}
    assert table[measures].notna().all(axis=None)
    history = pd.read_csv(project / f"reports/studies/{name}_history.csv")
    pd.testing.assert_frame_equal(history[[*expected]], expected, check_dtype=False)
    assert {f"{before}_accuracy", f"{before}_loss"} <= {*history}
    weights = list((project / f"studies/models/{name}").rglob("*.safetensors"))
    assert len(weights) == len(expected)
    assert not (project / f"checkpoints/studies/{name}").exists()


@pytest.mark.parametrize("name", STUDIES)
def test_a_summary_has_a_row_for_each_arm_and_measure(name: str, project: Path) -> None:
    table = pd.read_csv(project / f"reports/studies/{name}.csv")
    summary = pd.read_csv(project / f"reports/studies/{name}_summary.csv")
    named = [*table.columns[: list(table.columns).index("seed")]]
    means = table.groupby(named, sort=False, dropna=False)["test_accuracy"].mean()
    rows = summary[summary["measure"] == "test_accuracy"]
    assert rows["mean"].tolist() == pytest.approx(means.tolist(), rel=1e-5)
    assert set(rows["seeds"]) == {2}
    measures = table.columns[len(named) + 1 :]
    assert summary["measure"].tolist() == [*measures] * len(means)


def test_findings_and_page_are_there(project: Path) -> None:
    findings = pd.read_csv(project / "reports/findings.csv")
    declared = YAML(typ="safe").load(project / "studies/claims.yaml")["claims"]
    assert findings["name"].tolist() == list(declared)
    metrics = json.loads((project / "reports/findings.json").read_text())
    assert list(metrics["effect"]) == list(declared)
    short = (project / "reports/README.md").read_text()
    assert all(sentence in short for sentence in findings["sentence"])
    page = (project / "reports/report.html").read_text()
    assert all(escape(claim["claim"]) in page for claim in declared.values())


def test_nothing_runs_again(project: Path) -> None:
    assert everything(project) == []
    assert git(project, "status", "--porcelain") == ""


def test_the_pipeline_does_without_the_studies(committed: Path) -> None:
    set_params(committed / "studies/params.yaml", {"groups_epochs": "2"})
    assert stages_run(run(committed, "dvc", "repro")) == []


def changes() -> dict[str, tuple[str, set[str]]]:
    """A new value for every parameter of the studies, and the stages that read it."""
    scored = {"epochs", "groups", "lambdas", "batch_sizes"}
    new = {
        "groups": "[1, 2]",
        "l1_lambdas": "[0, 1]",
        "batch_sizes": "[2, 32]",
        "replication_gn_groups": "[1, 1, 1, 1, 1, 1, 1]",
        "replication_affine_scale": "[0.9, 1.1]",
        "replication_affine_rotation": "1.0",
        "replication_affine_translation": "0.1",
        "replication_affine_shear": "1.0",
        "replication_lr": "0.1",
        "replication_momentum": "0.5",
        "replication_lr_step_factor": "0.5",
        "replication_l1_lambda": "0.1",
    }
    values = {}
    for key in studies.Settings.model_fields:
        name = "batch_size" if key == "batch_sizes" else key
        of = next(s for s in STUDIES if name.startswith(s))
        what = name.removeprefix(f"{of}_")
        read_by_score = what in scored or name == of or (of == "replication" and what != "seeds")
        value = "[0, 2]" if what == "seeds" else new.get(key, "7")
        values[key] = (value, {of, f"score_{of}"} if read_by_score else {of})
    return values


def test_each_parameter_changes_exactly_its_stages(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(committed)
    path = committed / "studies/params.yaml"
    before = path.read_text()
    for key, (value, expected) in changes().items():
        set_params(path, {key: value})
        with Repo(str(committed)) as repo:
            changed = {name.split(":")[-1] for name in repo.status()}
        # What reads their tables comes after them; the report shows the parameters themselves.
        assert changed == expected | {"report"}, key
        path.write_text(before)


class StoppedError(Exception):
    """Raised in place of training."""


@pytest.mark.parametrize("script", [study, score])
@pytest.mark.parametrize("name", STUDIES)
def test_params_are_the_keys_read(
    committed: Path, name: str, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise StoppedError

    monkeypatch.chdir(committed)
    monkeypatch.setattr(trials, "run", stop)
    monkeypatch.setattr(evaluation, "score_all", stop)
    base = Recorder(params.load(Path("params.yaml")))
    own = Recorder(params.load(Path("studies/params.yaml"), studies.Settings))
    monkeypatch.setattr(params, "load", lambda path, *_: own if path == study.OWN else base)
    with pytest.raises(StoppedError):
        script.main(name)
    stage = name if script is study else f"score_{name}"
    with Repo(str(committed)) as repo:
        declared = {
            str(Path(p.fs_path).relative_to(committed)): set(p.params)
            for p in repo.stage.load_one(path="studies/dvc.yaml", name=stage).params
        }
    read = {"params.yaml": base.read, "studies/params.yaml": own.read}
    assert declared == {file: keys for file, keys in read.items() if keys}


def test_forced_again_elsewhere_the_lock_and_the_reports_stay(
    committed: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", scheduler)
    stages = [f"studies/dvc.yaml:{name}" for name in ("layer_norm", "score_layer_norm", "judge")]
    again = [*stages, "reports/dvc.yaml:report"]
    ran = run(committed, "dvc", "repro", "--force", "--single-item", *again)
    assert stages_run(ran) == again
    assert git(committed, "status", "--porcelain") == ""


def test_a_killed_study_goes_on(committed: Path) -> None:
    set_params(committed / "studies/params.yaml", {"groups_train_size": "3000"})
    command = ["repro", "--single-item", "studies/dvc.yaml:groups"]
    process = subprocess.Popen(
        [".venv/bin/dvc", *command],
        cwd=committed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    saved = committed / "checkpoints/studies/groups"
    while len(list(saved.rglob("seed*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list(saved.rglob("seed*.safetensors")))
    assert 3 <= kept < 12

    (committed / ".dvc/tmp/rwlock").unlink(missing_ok=True)
    resumed = run(committed, "dvc", *command)
    (done,) = set(re.findall(r"(\d+)/12 \[00:00<\?", resumed.stderr))
    assert int(done) == kept
    assert not saved.exists()


def test_one_seed_is_too_few_to_judge_and_costs_nothing(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(committed)
    path = committed / "reports/studies/l1.csv"
    table = pd.read_csv(path)
    table[table["seed"] == 0].to_csv(path, index=False)
    before = (committed / "reports/findings.json").read_bytes()
    with pytest.raises(SystemExit) as refused, exit_on_input_error():
        judge.main()
    assert refused.value.code == (
        "error: studies/claims.yaml: l1_seeds: got 1 seed, allowed: at least 2"
    )
    assert (committed / "reports/findings.json").read_bytes() == before
