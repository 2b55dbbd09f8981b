"""Runs that end badly, and experiments: nothing is lost, and each is what was asked for."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from normlab.errors import exit_on_input_error
from stages import evaluate, train
from tests.pipeline.copies import git, heed, run, set_params, stages_run

pytestmark = pytest.mark.timeout(3600)


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
@pytest.mark.usefixtures("_first_images")
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
        preexec_fn=heed,
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
        run(project, "dvc", "checkout")


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
        run(project, "dvc", "checkout")


@pytest.mark.usefixtures("elsewhere")
def test_queued_experiments_run(project: Path) -> None:
    run(project, "dvc", "exp", "run", "--queue", "-n", "groups", "-S", "gn_groups=1,16")
    # Git is asked, since `dvc queue status` would send the worker one more message of those that
    # can kill it; see docs/sharing.md.
    while len(git(project, "for-each-ref", "refs/exps/*/*/groups-*").splitlines()) < 2:
        assert git(project, "for-each-ref", "refs/exps/celery/failed") == ""
        # It looks for `dvc` on the PATH, and its output stays open until its worker has ended.
        run(project, "dvc", "queue", "start", activated=True)
    table = csv.DictReader(run(project, "dvc", "exp", "show", "--csv").stdout.splitlines())
    groups = {row["Experiment"]: row["gn_groups"] for row in table}
    assert (groups["groups-1"], groups["groups-2"]) == ("1", "16")
    assert git(project, "status", "--porcelain") == ""
