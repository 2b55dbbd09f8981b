"""The real commands on real MNIST, in a copy of the project, with a small budget."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import pandas as pd
import psutil
import pytest
from distributed import Client
from dvc.repo import Repo

from normlab import files, params
from normlab.arms import MAIN, Arm
from normlab.errors import exit_on_input_error
from normlab.training import cluster, trials
from normlab.training.recipe import Data
from stages import evaluate, plot, train
from tests.conftest import VARIANTS, make_recipe

ROOT = Path(__file__).parents[2]
TRAIN = ["train_bn_l1", "train_gn", "train_ln"]
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

IN_PROCESS = {
    "processes": False,
    "n_workers": 1,
    "threads_per_worker": 1,
    "dashboard_address": ":0",
}
BUDGET = {"seeds": "[0, 1]", "epochs": "1", "val_size": "500", "train_size": "500"}


def set_params(path: Path, values: dict[str, str]) -> None:
    lines = path.read_text().splitlines()
    changed = [
        f"{key}: {values[key]}" if (key := line.split(":")[0]) in values else line for line in lines
    ]
    path.write_text("\n".join(changed) + "\n")


def run(
    project: Path, *command: str, check: bool = True, activated: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `.venv/bin/<command>` as a user who has not activated the environment, or who has."""
    path = [p for p in os.environ["PATH"].split(os.pathsep) if ".venv" not in p]
    if activated:
        path.insert(0, str(project / ".venv/bin"))
    done = subprocess.run(
        [f".venv/bin/{command[0]}", *command[1:]],
        cwd=project,
        env={**os.environ, "PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]


def assert_in_order(ran: list[str]) -> None:
    """All stages ran, each after what it depends on; DVC says nothing of those that train."""
    first, *trained, evaluated, plotted = ran
    assert (first, evaluated, plotted) == ("download", "evaluate", "plot")
    assert sorted(trained) == TRAIN


def git(project: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def copy(folder: Path) -> None:
    """Copy the project, with a small budget: no data, no locks, no reports, no cache."""
    listed = git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in listed:
        made = name.endswith("dvc.lock") or name.startswith("reports/")
        if (ROOT / name).is_file() and (not made or name == "reports/dvc.yaml"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    set_params(folder / "params.yaml", BUDGET)
    git(folder, "init", "-q")


def run_from_nothing(folder: Path) -> None:
    """Copy the project, run its pipeline and commit what that made."""
    copy(folder)
    assert_in_order(stages_run(run(folder, "dvc", "repro")))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Run")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, run once from nothing."""
    folder = tmp_path_factory.mktemp("clone")
    run_from_nothing(folder)
    return folder


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


class Recorder:
    """Parameters that remember which of them were read."""

    def __init__(self, values: params.Flat) -> None:
        self.values, self.read = values, set[str]()

    def __getattr__(self, name: str) -> object:
        self.read.add(name)
        return getattr(self.values, name)


@pytest.fixture
def elsewhere(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stages use a scheduler that is up already: less to wait for, and the same results."""
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", scheduler)


@pytest.fixture
def in_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run stages by their `main` in this process, on one thread of it."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))


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
        said = lines.index('error: params.yaml: lr: got "fast", allowed: a number above 0')
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
            run(project, "dvc", "checkout", "dvc.yaml")
    finally:
        git(project, "checkout", ".")
        run(project, "dvc", "checkout", "dvc.yaml")


def test_histories_show_a_training_as_it_goes(noise: Data, tmp_path: Path) -> None:
    recipe, arm = make_recipe(epochs=2), Arm(MAIN, "gn", {})
    planned = [trials.Trial(arm, recipe, seed) for seed in (0, 1)]
    history, seen = tmp_path / "gn.csv", []
    with pytest.MonkeyPatch.context() as patched:
        written = files.write_table

        def watch(path: Path, table: pd.DataFrame) -> None:
            seen.append(len(table))
            written(path, table)

        patched.setattr(files, "write_table", watch)
        patched.setattr(cluster, "connect", lambda _: Client(**IN_PROCESS))
        states = trials.run(planned, noise, history, tmp_path / "kept")
    assert seen == [1, 2, 3, 4, 4]
    table = pd.read_csv(history)
    assert table[["seed", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert [state.epoch for trial in states for state in trial] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        ("data/train/train-labels-idx1-ubyte", "truncate"),
        ("data/train/train-images-idx3-ubyte", "delete"),
        ("data/test/t10k-images-idx3-ubyte", "alter"),
        ("models/gn/seed1/epoch01.safetensors", "truncate"),
        ("models/gn/seed1/epoch01.safetensors", "delete"),
        ("models/gn/seed1/epoch01.safetensors", "swap"),
        ("reports/history/gn.csv", "delete"),
    ],
)
def test_a_bad_file_gets_one_line(
    project: Path,
    tmp_path: Path,
    path: str,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("data/train", "data/test", "models", "reports/history"):
        shutil.copytree(project / name, tmp_path / name)
    shutil.copy(project / "params.yaml", tmp_path)
    file = tmp_path / path
    content = file.read_bytes()
    file.unlink()
    if damage == "truncate":
        file.write_bytes(content[:-1])
    if damage == "alter":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    if damage == "swap":
        shutil.copy(tmp_path / "models/ln/seed1/epoch01.safetensors", file)
    monkeypatch.chdir(tmp_path)
    where = f"{re.escape(str(file.parent.relative_to(tmp_path)))}(: |/){re.escape(file.name)}"
    with pytest.raises(SystemExit, match=f"^error: {where}: .+$"), exit_on_input_error():
        train.main("gn") if "train" in path else evaluate.main()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("in_process")
def test_an_interrupted_stage_stops_at_once_and_goes_on_later(project: Path) -> None:
    set_params(project / "params.yaml", {"epochs": "4", "train_size": "2000"})
    command = [".venv/bin/dvc", "repro", "--single-item", "train_ln"]
    launched = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        saved = project / "checkpoints/ln"
        while len(list(saved.rglob("seed*"))) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        os.killpg(process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        output, _ = process.communicate()
        assert time.monotonic() - interrupted < interrupted - launched
        assert process.returncode != 0
        assert "Traceback" not in output
        _, alive = psutil.wait_procs(children, timeout=interrupted - launched)
        assert not alive
        assert not list(project.glob("models/.ln*")) + list(project.glob("reports/history/.*"))
        assert len(list(saved.rglob("seed*"))) >= 3

        resumed = run(project, "dvc", "repro", "--single-item", "train_ln")
        assert " 0/8" not in resumed.stderr
        history = (project / "reports/history/ln.csv").read_text()
        train.main("ln")
        assert (project / "reports/history/ln.csv").read_text() == history
    finally:
        git(project, "checkout", ".")
        run(project, "dvc", "checkout", "dvc.yaml")


@pytest.mark.usefixtures("elsewhere")
def test_an_experiment_with_l1_retrains_bn_l1_alone(project: Path) -> None:
    try:
        ran = run(project, "dvc", "exp", "run", "-n", "more-l1", "-S", "l1_lambda=0.05")
        assert stages_run(ran) == ["train_bn_l1", "evaluate", "plot"]
        diff = json.loads(run(project, "dvc", "metrics", "diff", "--json").stdout)
        changed = diff["reports/metrics.json"]
        assert {key.split(".")[1] for key in changed} == {"bn_l1"}
        assert changed["loss.bn_l1"]["diff"] != 0
        shown = run(project, "dvc", "exp", "show", "--csv").stdout
        assert "more-l1" in shown
        report = run(project, "dvc", "params", "diff", "--md").stdout
        assert "| params.yaml | l1_lambda | 0.0001 | 0.05 |" in " ".join(report.split())
        plots = run(project, "dvc", "plots", "diff", "--json", "HEAD").stdout
        assert "Test accuracy" in plots
    finally:
        git(project, "checkout", ".")
        run(project, "dvc", "checkout", "dvc.yaml")


@pytest.mark.usefixtures("elsewhere")
def test_queued_experiments_run(project: Path) -> None:
    run(project, "dvc", "exp", "run", "--queue", "-n", "groups", "-S", "gn_groups=1,16")
    # Git is asked, since `dvc queue status` would send the worker one more message of those that
    # can kill it; see the README.
    while len(git(project, "for-each-ref", "refs/exps/*/*/groups-*").splitlines()) < 2:
        assert git(project, "for-each-ref", "refs/exps/celery/failed") == ""
        # It looks for `dvc` on the PATH, and its output stays open until its worker has ended.
        run(project, "dvc", "queue", "start", activated=True)
    table = csv.DictReader(run(project, "dvc", "exp", "show", "--csv").stdout.splitlines())
    groups = {row["Experiment"]: row["gn_groups"] for row in table}
    assert (groups["groups-1"], groups["groups-2"]) == ("1", "16")
    assert git(project, "status", "--porcelain") == ""
