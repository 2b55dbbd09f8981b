"""`make verify` by its real commands, with small budgets."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from normlab.errors import InputError
from normlab.network.known_answer import ARITHMETIC
from normlab.params import Params, mapping
from tests.pipeline.copies import first, pin, place_data
from tools import differences, verify

ROOT = verify.ROOT
# A limit for what hangs, not for what is slow.
pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("all_elsewhere")]

# Trials of one seed of one variant begin with one bit of one weight changed, the least that counts.
FLIP_A_BIT = """

_start = start


def start(recipe, seed):
    state = _start(recipe, seed)
    if (recipe.variant, seed) == ("gn", 1):
        name = next(name for name, array in state.weights.items() if array.ndim == 4)
        state.weights[name].view(np.uint32).flat[5] ^= 1
    return state
"""
# A package that stands before another of its name, and changes what that does.
OTHER_PANDAS = """
import sys
from pathlib import Path

here = str(Path(__file__).parents[1])
sys.path.remove(here)
del sys.modules["pandas"]
import pandas

sys.path.append(here)
to_csv = pandas.DataFrame.to_csv
pandas.DataFrame.to_csv = lambda *a, **k: to_csv(*a, **{**k, "float_format": "%.5g"})
"""
EPSILON = re.compile(r"\b1e-5f\b")


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [".venv/bin/python", "-m", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def table(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Verdict and detail of every output that has a line."""
    assert "Traceback" not in done.stderr, done.stderr
    lines = [re.split(r"  +", line, maxsplit=2) for line in done.stdout.splitlines()]
    return {words[1]: (words[0], words[2]) for words in lines if len(words) == 3}


@contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    before = file.read_text()
    assert text != before
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(before)


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A copy of the project, with the first images alone, and a receipt that was written here."""
    with verify.copied(ROOT) as clone:
        some = first()
        pin(clone, some)
        place_data(clone, some)
        written = command(clone, "tools.verify", "small", "--write")
        assert written.returncode == 0, written.stderr
        yield clone


KINDS = ("outs", "metrics", "plots")
MODELS = ["models/bn_l1", "models/gn", "models/ln"]
TRAINED = [*MODELS, *(f"reports/history/{variant}.csv" for variant in ("bn_l1", "gn", "ln"))]


def test_an_unchanged_project_passes_and_every_output_has_a_line(project: Path) -> None:
    done = command(project, "tools.verify", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = table(done)
    pipeline = mapping(ROOT / "dvc.yaml")["stages"]
    stages = [stage for name, stage in pipeline.items() if name != "plot"]
    kinds = [stage.get(kind, []) for stage in stages for kind in KINDS]
    outs = [out for kind in kinds for out in kind]
    assert set(lines) == {out if isinstance(out, str) else next(iter(out)) for out in outs}
    assert {verdict for verdict, _ in lines.values()} == {"same"}
    assert done.stdout.splitlines()[-1] == f"all {len(lines)} outputs are the same"


def test_one_bit_of_one_weight_is_found_where_it_is(project: Path) -> None:
    training = project / "normlab/training/trial.py"
    with changed(training, training.read_text() + FLIP_A_BIT):
        done = command(project, "tools.verify", "small")
    assert done.returncode == 1
    lines = table(done)
    others = [path for path in TRAINED if "gn" not in path]
    assert [lines[path][0] for path in others] == ["same"] * 4
    verdict, detail = lines["models/gn"]
    assert verdict == "differs"
    assert re.fullmatch(r"seed1/epoch01\.safetensors \w{64}, rebuilt \w{64}", detail)
    last = done.stdout.splitlines()[-1]
    assert re.search(r"outputs differ, first \S*/gn\S*: .*seed ?1\b", last)


def test_a_constant_of_the_engine_is_found_in_the_first_epoch(project: Path) -> None:
    """Whoever changes it is told so at once; with the known answer changed too, where it shows."""
    engine, python = (
        project / "normlab/network/engine.c",
        project / "normlab/network/known_answer.py",
    )
    with changed(engine, EPSILON.sub("1.1e-5f", engine.read_text())):
        refused = command(project, "tools.verify", "small")
        assert (refused.returncode, refused.stdout) == (1, "")
        answer = re.search(r"answer came out as (\w{16}), allowed: (\w{16})", refused.stderr)
        assert answer, refused.stderr
        assert answer[1] != answer[2] == ARITHMETIC
        with changed(python, python.read_text().replace(answer[2], answer[1])):
            done = command(project, "tools.verify", "small")
    assert done.returncode == 1
    lines = table(done)
    for path in MODELS:
        verdict, detail = lines[path]
        assert (verdict, detail.split(" ")[0]) == ("differs", "seed0/epoch01.safetensors")
    assert lines["data/train"][0] == "same"
    last = done.stdout.splitlines()[-1]
    assert re.search(r"outputs differ, first \S*/bn_l1\S*: .*seed ?0\b", last)


def test_another_version_of_a_package_is_told_and_what_it_changes_is_found(
    project: Path, tmp_path: Path
) -> None:
    """An environment with a pandas that writes one digit less."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for name, text in {
        "pandas/__init__.py": OTHER_PANDAS,
        "pandas-9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: pandas\nVersion: 9.9\n",
    }.items():
        (packages / name).parent.mkdir()
        (packages / name).write_text(text)
    line = [str(tmp_path / "bin/python"), "-m", "tools.verify", "small"]
    done = subprocess.run(line, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\nnot the packages of requirements.lock: pandas 9.9 (locked: " in done.stderr
    lines = table(done)
    assert {lines[path][0] for path in MODELS} == {"same"}
    assert {lines[path][0] for path in TRAINED if path not in MODELS} == {"differs"}


def test_every_parameter_is_told_before_anything_runs(project: Path) -> None:
    params = project / "params.yaml"
    values = mapping(params)
    assert set(values) == set(Params.model_fields)
    for key in values:
        text = json.dumps({**values, key: "other"})
        with changed(params, text), pytest.raises(InputError) as refused:
            verify.verify_small(project)
        assert f"tests/receipt.json: is of other parameters: parameters.{key}" in str(refused.value)
    with changed(params, json.dumps({**values, "l1_lambda": values["l1_lambda"] + 0.001})):
        done = command(project, "tools.verify", "small")
    assert (done.returncode, done.stdout) == (1, "")
    was = values["l1_lambda"]
    assert done.stderr == (
        f"error: tests/receipt.json: is of other parameters: parameters.l1_lambda {was:g}, "
        f"here {was + 0.001:g} (+0.001); `make receipt` writes anew\n"
    )


def test_a_receipt_that_is_not_there_or_not_one_gets_one_line(project: Path) -> None:
    receipt = project / verify.RECEIPT
    with changed(receipt, "{}"), pytest.raises(InputError, match=r"got nothing, allowed: what `ma"):
        verify.verify_small(project)
    moved = receipt.rename(project / "away")
    with pytest.raises(InputError, match=r"receipt\.json: cannot be read"):
        verify.verify_small(project)
    moved.rename(receipt)


def test_the_pipeline_is_compared_with_its_lock(project: Path) -> None:
    """A parameter has changed since the lock was written, a figure since it was drawn."""
    with verify.copied(project) as clone:
        budget = {"seeds": [0], "epochs": 1, "train_size": 200, "val_size": 200, "l1_lambda": 1e-4}
        verify.change_params(clone / "params.yaml", budget)
        ran = command(clone, "dvc", "repro")
        assert ran.returncode == 0, ran.stderr
        verify.change_params(clone / "params.yaml", {"l1_lambda": 0.01})
        lock = (clone / "dvc.lock").read_bytes()
        for path, md5 in verify.outputs([verify.locked(clone, "dvc.yaml")]).items():
            assert differences.dvc_md5(clone / path) == md5
        shutil.rmtree(clone / "reports/figures")
        done = command(clone, "tools.verify")
        assert (clone / "dvc.lock").read_bytes() == lock
    assert done.returncode == 1
    lines = table(done)
    assert lines.pop("params.yaml") == ("changed", "l1_lambda 0.0001, here 0.01")
    assert list(lines)[:2] == ["data/test", "data/train"]
    for path in ("data/train", "models/gn", "models/ln", "reports/history/gn.csv"):
        assert lines[path][0] == "same"
    verdict, detail = lines["models/bn_l1"]
    assert verdict == "differs"
    assert re.match(r"first seed0/epoch01\.safetensors: \S+\[\d+\] \S+, rebuilt \S+ \(", detail)
    verdict, detail = lines["reports/history/bn_l1.csv"]
    assert verdict == "differs"
    where, what = detail.split(": ")
    assert where == "first at study main, variant bn_l1, seed 0, epoch 1"
    assert re.fullmatch(r"\w+ [\d.]+, rebuilt [\d.]+ \([+-][\d.e-]+\)", what)
    assert "what is here is not what the lock has" in lines["reports/figures"][1]
    last = done.stdout.splitlines()[-1]
    assert f"outputs differ, first reports/history/bn_l1.csv: {detail}" in last


def test_a_stage_that_fails_ends_in_one_line(project: Path) -> None:
    training = project / "normlab/training/trial.py"
    with (
        changed(training, training.read_text() + "\nraise SystemExit('error: no')\n"),
        pytest.raises(InputError, match=r"^dvc repro evaluate: ended with status \d+"),
    ):
        verify.verify_small(project)


def test_a_folder_without_git_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"git status: .*not a git repository"):
        verify.copied(tmp_path).__enter__()


def test_what_is_copied_has_the_uncommitted_and_no_output(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "fresh.txt").write_text("new")
    (project / "checkpoints/gn").mkdir(parents=True)
    (project / "checkpoints/gn/left").write_text("by a killed run")
    with verify.copied(project) as clone:
        assert (clone / "fresh.txt").read_text() == "new"
        for gone in ("checkpoints", "dvc.lock", "reports/metrics.json", "reports/figures"):
            assert not (clone / gone).exists()
        assert (clone / "reports/dvc.yaml").exists()
        cache = subprocess.run(
            [".venv/bin/dvc", "cache", "dir"], cwd=clone, capture_output=True, text=True, check=True
        )
        assert Path(cache.stdout.strip()).resolve() == (clone / ".dvc/cache").resolve()
    assert not clone.exists()
    assert "uncommitted changes" in capsys.readouterr().err
    (project / "fresh.txt").unlink()
    shutil.rmtree(project / "checkpoints")


def test_bad_words_are_refused() -> None:
    for words in (["large"], ["studies", "small"], ["pipeline", "--write"]):
        done = command(ROOT, "tools.verify", *words)
        assert done.returncode == 2
        assert "allowed" in done.stderr or "choose from" in done.stderr or "unrec" in done.stderr
