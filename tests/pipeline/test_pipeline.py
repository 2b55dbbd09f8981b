"""The real commands on real images, in a copy of the project, with a small budget."""

import json
import re
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from dvc.repo import Repo

from normlab import files, params
from normlab.arms import MAIN, Arm
from normlab.training import cluster, trials
from normlab.training.recipe import Images
from stages import evaluate, plot, train
from tests.conftest import PART, VARIANTS, make_recipe
from tests.pipeline.conftest import IN_PROCESS
from tests.pipeline.copies import (
    TRAIN,
    Recorder,
    assert_in_order,
    git,
    run,
    set_params,
    stages_run,
)

REPORTS = [
    "comparisons.csv",
    "confusion.csv",
    "history/bn_l1.csv",
    "history/gn.csv",
    "history/ln.csv",
    "metrics.json",
    "misclassified.csv",
    "parameters.csv",
    "summary.csv",
    "test_curves.csv",
]
# A limit for what hangs, not for what is slow.
pytestmark = pytest.mark.timeout(3600)


def test_all_outputs_are_there(project: Path) -> None:
    for name in REPORTS:
        assert (project / "reports" / name).stat().st_size > 0
    figures = {path.stem for path in (project / "reports/figures").iterdir()}
    assert figures == {
        *("samples", "test_curves", "val_curves", "accuracies", "confusion", "parameters"),
        *("misclassified_bn_l1", "misclassified_gn", "misclassified_ln"),
    }
    models = sorted(
        str(p.relative_to(project)) for p in (project / "models").rglob("*.safetensors")
    )
    assert models == [
        f"models/{v}/seed{s}/epoch01.safetensors" for v in ("bn_l1", "gn", "ln") for s in (0, 1)
    ]
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert list(metrics) == ["accuracy", "loss", "ece"]
    assert all(list(values) == VARIANTS for values in metrics.values())
    summary = pd.read_csv(project / "reports/summary.csv")
    parameters = summary[summary["measure"] == "parameters"]
    assert parameters["mean"].tolist() == [7946, 7946, 55546]
    compared = pd.read_csv(project / "reports/comparisons.csv")[["variant", "other"]]
    assert compared.to_numpy().tolist() == [list(pair) for pair in combinations(VARIANTS, 2)]
    header = (project / "reports/history/bn_l1.csv").read_text().splitlines()[0]
    measured = "train_loss,train_accuracy,val_loss,val_accuracy,l1_penalty"
    assert header == f"study,variant,seed,epoch,lr,{measured},weights"
    assert not (project / "checkpoints/gn").exists()
    assert git(project, "status", "--porcelain") == ""


def test_a_second_repro_runs_nothing(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    again = run(project, "dvc", "repro")
    assert stages_run(again) == []
    assert "Data and pipelines are up to date." in again.stdout
    assert (project / "dvc.lock").read_bytes() == lock


AFFINE = [*TRAIN, "plot"]
CHANGES = {
    "dataset": ("fashion_mnist", ["download"]),
    "seeds": ("[0, 2]", TRAIN),
    "epochs": ("2", TRAIN),
    "val_size": ("501", TRAIN),
    "train_size": ("501", TRAIN),
    "batch_size": ("64", TRAIN),
    "lr": ("0.02", TRAIN),
    "momentum": ("0.8", TRAIN),
    "nesterov": ("false", TRAIN),
    "lr_schedule": ("constant", TRAIN),
    "lr_step_epochs": ("5", TRAIN),
    "lr_step_factor": ("0.5", TRAIN),
    "l1_lambda": ("0.001", ["train_bn_l1"]),
    "gn_groups": ("2", ["train_gn", "evaluate"]),
    "ln_affine": ("channel", ["train_ln", "evaluate"]),
    "affine_rotation": ("8.0", AFFINE),
    "affine_translation": ("0.2", AFFINE),
    "affine_scale": ("[0.75, 1.25]", AFFINE),
    "affine_shear": ("4.0", AFFINE),
    "device": ("auto", TRAIN),
    "precision": ("float32", TRAIN),
}


def test_each_parameter_changes_exactly_its_stages(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)  # or else DVC names stages by their path from here
    assert set(CHANGES) == set(params.Params.model_fields)
    committed = (project / "params.yaml").read_text()
    try:
        for key, (value, expected) in CHANGES.items():
            set_params(project / "params.yaml", {key: value})
            with Repo(str(project)) as repo:
                assert sorted(repo.status("dvc.yaml")) == sorted(expected), key
            (project / "params.yaml").write_text(committed)
    finally:
        (project / "params.yaml").write_text(committed)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("stage", [*TRAIN, "evaluate", "plot"])
def test_params_are_the_keys_read_and_outputs_the_same_without_workers_and_test_split(
    project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(params.load(Path("params.yaml")))
    monkeypatch.setattr(params, "load", lambda _: recorder)
    if stage in TRAIN:
        test = (project / "data/test").rename(project / "data/away")
        try:
            train.main(stage.removeprefix("train_"))
        finally:
            test.rename(project / "data/test")
    else:
        {"evaluate": evaluate, "plot": plot}[stage].main()
    with Repo(str(project)) as repo:
        declared = {key for p in repo.stage.load_one(name=stage).params for key in p.params}
        assert recorder.read == declared
        assert repo.status("dvc.yaml") == {}


@pytest.mark.usefixtures("elsewhere")
def test_force_elsewhere_leaves_the_lock_and_the_reports_unchanged(project: Path) -> None:
    lock = (project / "dvc.lock").read_bytes()
    ran = run(project, "dvc", "repro", "--force")
    assert_in_order(stages_run(ran))
    assert (project / "dvc.lock").read_bytes() == lock
    assert git(project, "status", "--porcelain") == ""


def test_a_bad_value_stops_before_any_work_and_says_how_to_lose_nothing(project: Path) -> None:
    """DVC removes a stage's outputs before it runs; two commands bring them back."""
    set_params(project / "params.yaml", {"lr": "fast"})
    try:
        refused = run(project, "dvc", "repro", check=False)
        assert refused.returncode != 0
        lines = refused.stderr.splitlines()
        said = lines.index('error: params.yaml: lr: got "fast", allowed: a number from 1e-09 to 10')
        assert "Traceback" not in refused.stderr
    finally:
        git(project, "checkout", "params.yaml")
    back = re.fullmatch(
        r"what was there before: dvc (checkout train_\w+) && git (checkout reports)",
        lines[said + 1],
    )
    assert back
    run(project, "dvc", *back[1].split())
    git(project, *back[2].split())
    assert git(project, "status", "--porcelain") == ""
    assert len(list((project / "models").rglob("*.safetensors"))) == 6
    assert stages_run(run(project, "dvc", "repro")) == []


@pytest.mark.usefixtures("elsewhere")
def test_going_back_to_earlier_parameters_trains_nothing(project: Path) -> None:
    """What has run once is in DVC's run cache, for experiments in a folder of their own too."""
    try:
        for value, ran in (("0.02", ["train_bn_l1", "evaluate", "plot"]), ("0.0001", [])):
            set_params(project / "params.yaml", {"l1_lambda": value})
            assert stages_run(run(project, "dvc", "repro")) == ran
        git(project, "checkout", "params.yaml")
        assert git(project, "status", "--porcelain") == ""
        for options in ([], ["--temp"]):
            done = run(project, "dvc", "exp", "run", *options, "-S", "l1_lambda=0.02")
            assert stages_run(done) == []
            assert "Stage 'train_bn_l1' is cached" in done.stdout
            git(project, "checkout", ".")
            run(project, "dvc", "checkout")
    finally:
        git(project, "checkout", ".")
        run(project, "dvc", "checkout")


def test_histories_show_a_training_as_it_goes(noise_split: Images, tmp_path: Path) -> None:
    recipe, arm = make_recipe(epochs=2), Arm(MAIN, "gn", {})
    planned = [trials.Trial(arm, recipe, seed, PART) for seed in (0, 1)]
    history, seen = tmp_path / "gn.csv", []
    with pytest.MonkeyPatch.context() as patched:
        written = files.write_table

        def watch(path: Path, table: pd.DataFrame) -> None:
            seen.append(len(table))
            written(path, table)

        patched.setattr(files, "write_table", watch)
        patched.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))
        states = trials.run(planned, noise_split, history, tmp_path / "kept")
    assert seen == [1, 2, 3, 4, 4]
    table = pd.read_csv(history)
    assert table[["seed", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert [state.epoch for trial in states for state in trial] == [1, 2, 1, 2]
