"""`make verify` by its real commands, with small budgets; its comparisons; `make ci-report`."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from normlab.errors import InputError
from normlab.network.known_answer import ARITHMETIC
from normlab.params import Params, mapping
from tools import differences, verify

ROOT = verify.ROOT
Tensors = dict[str, NDArray[Any]]
# A limit for what hangs, not for what is slow.
pytestmark = pytest.mark.timeout(3600)

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
    """A copy of the project with a receipt that was written here."""
    with verify.copied(ROOT) as clone:
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


def test_every_parameter_is_told_before_anything_runs(project: Path) -> None:
    params = project / "params.yaml"
    values = mapping(params)
    assert set(values) == set(Params.model_fields)
    for key in values:
        text = re.sub(rf"(?m)^{key}:.*$", f"{key}: other", params.read_text())
        with changed(params, text), pytest.raises(InputError) as refused:
            verify.verify_small(project)
        assert f"tests/receipt.json: is of other parameters: parameters.{key}" in str(refused.value)
    text = params.read_text().replace("l1_lambda: 0.0001", "l1_lambda: 0.001")
    with changed(params, text):
        done = command(project, "tools.verify", "small")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: tests/receipt.json: is of other parameters: parameters.l1_lambda 0.0001, "
        "here 0.001 (+0.0009); `make receipt` writes anew\n"
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
        yaml = YAML()
        values = yaml.load(clone / "params.yaml")
        values.update(seeds=[0], epochs=1, train_size=200, val_size=200)
        yaml.dump(values, clone / "params.yaml")
        ran = command(clone, "dvc", "repro")
        assert ran.returncode == 0, ran.stderr
        values.update(l1_lambda=0.01)
        yaml.dump(values, clone / "params.yaml")
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
    first = r"first at variant bn_l1, seed 0, epoch 1: \w+ [\d.]+, rebuilt [\d.]+ \([+-][\d.e-]+\)"
    assert re.fullmatch(first, detail)
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


HISTORY = """variant,seed,epoch,lr,val_loss,val_accuracy,weights
gn,0,1,0.015,0.5,0.9,aa
gn,0,2,0.015,0.4,0.91,12
gn,1,1,0.015,0.6,0.89,cc
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "0.4,0.91,12",
            "0.40001,0.92,dd",
            "first at variant gn, seed 0, epoch 2: val_accuracy 0.91, rebuilt 0.92 (+0.01)",
        ),
        (
            ",12\n",
            ",13\n",
            "first at variant gn, seed 0, epoch 2: weights differ, all figures agree to six digits",
        ),
        (
            "0.6,",
            "nan,",
            "first at variant gn, seed 1, epoch 1: val_loss 0.6, rebuilt nan (+nan)",
        ),
        ("0.5,", ",", "first at variant gn, seed 0, epoch 1: val_loss 0.5, rebuilt "),
        ("gn,1,1,0.015,0.6,0.89,cc\n", "", "3 rows, rebuilt 2"),
        (
            "val_loss",
            "loss",
            "columns variant,seed,epoch,lr,val_loss,val_accuracy,weights, "
            "rebuilt variant,seed,epoch,lr,loss,val_accuracy,weights",
        ),
        ("\n", "\r\n", "same values, other bytes"),
    ],
)
def test_a_history_differs_first_at_a_trial_and_an_epoch(old: str, new: str, said: str) -> None:
    assert old in HISTORY
    assert differences.table_difference(HISTORY, HISTORY.replace(old, new)) == said


def test_other_tables_differ_first_in_a_row() -> None:
    rows = "setting,variant,seed,test_loss\n1,gn,0,0.2\n1,gn,1,0.3\n"
    assert differences.table_difference(rows, rows.replace("0.3", "0.25")) == (
        "first at row 2, setting 1, variant gn, seed 1: test_loss 0.3, rebuilt 0.25 (-0.05)"
    )
    assert differences.table_difference("", "a\n1\n") == "columns , rebuilt a"


def test_json_differs_first_at_a_key() -> None:
    old = {"gn": {"loss": 0.5, "ece": None}, "claims": [{"name": "a"}, {"name": "b"}]}
    assert differences.json_difference(old, json.loads(json.dumps(old))) is None
    for change, said in (
        ({"gn": {"loss": 0.25, "ece": 1}}, "gn.loss 0.5, rebuilt 0.25 (-0.25)"),
        ({"gn": {"loss": 0.5, "ece": 1}}, "gn.ece None, rebuilt 1"),
        ({"gn": {"loss": 0.5}}, "gn.ece missing"),
        ({"ln": 1}, "ln not among those committed"),
        ({"claims": [{"name": "a"}, {"name": "c"}]}, "claims.1.name b, rebuilt c"),
        ({"claims": [{"name": "a"}]}, "claims.1 missing"),
    ):
        assert differences.json_difference(old, old | change) == said


def test_tensors_differ_most_in_one_element() -> None:
    old: Tensors = {"a": np.zeros((2, 3), np.float32), "b": np.array([1, 250], np.uint8)}
    new: Tensors = {"a": old["a"].copy(), "b": np.array([3, 0], np.uint8)}
    assert differences.tensor_difference(old, old) == "same tensors, other bytes"
    assert differences.tensor_difference(old, new) == "b[1] 250, rebuilt 0 (250)"
    new["a"][1, 0] = np.nan
    assert differences.tensor_difference(old, new) == "a[3] 0, rebuilt nan (inf)"
    assert differences.tensor_difference(new, new) == "same tensors, other bytes"
    signed = {"a": -old["a"], "b": old["b"]}
    assert differences.tensor_difference(old, signed) == "a[0] 0, rebuilt -0 (0)"
    assert differences.tensor_difference(old, {"a": old["a"]}) == "b missing"
    wide = old | {"b": old["b"].astype(np.int64)}
    assert differences.tensor_difference(old, wide) == "b uint8(2,), rebuilt int64(2,)"


OTHER_LETTERS = {"text.hinting": "none"}


def picture(marks: int = 4, dpi: int = 100, at: float = 0.5, rc: Any = None) -> bytes:
    with rc_context(rc):
        figure = Figure(figsize=(4, 3), dpi=dpi)
        axes = figure.subplots()
        axes.plot(range(marks), [at] * marks, "o", label="group norm")
        axes.set(title="Test images", xlim=(-1, 4), ylim=(0, 1), xlabel="epoch")
        axes.legend()
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def seen(one: bytes, other: bytes) -> str | None:
    return differences.picture_difference(differences.pixels(one), differences.pixels(other))


def test_pictures_may_differ_in_edges_and_not_in_what_they_show() -> None:
    drawn = picture()
    for rasterized in (
        picture(rc=OTHER_LETTERS),
        picture(rc={"text.hinting": "force_autohint"}),
        picture(rc={"text.antialiased": False}),
    ):
        assert rasterized != drawn
        assert seen(drawn, rasterized) is None
    assert re.fullmatch(
        r"around pixel \(\d+, \d+\) by \d+ of 255, allowed: 24", str(seen(drawn, picture(marks=3)))
    )
    assert seen(drawn, picture(at=0.6)) is not None
    assert seen(drawn, picture(dpi=50)) == "400 x 300, rebuilt 200 x 150 pixels"


def test_the_page_is_compared_with_its_pictures() -> None:
    def page(image: bytes, md5: str, text: str = "99.5 %") -> str:
        embedded = base64.b64encode(image).decode()
        return (
            f"<p>{text}</p>\n<img src='data:image/png;base64,{embedded}'>\n"
            f"<td>reports/figures</td><td><code>{md5 * 32}.dir</code></td>\n"
        )

    drawn, again = picture(), picture(rc=OTHER_LETTERS)
    committed = page(drawn, "a")
    assert differences.page_difference(committed, page(again, "b")) is None
    shown = differences.page_difference(committed, page(picture(marks=3), "a"))
    assert shown is not None
    assert shown.startswith("picture 1: around pixel")
    said = differences.page_difference(committed, page(again, "b", "99.6 %"))
    assert said == "line 1: '<p>99.5 %</p>', rebuilt '<p>99.6 %</p>'"
    assert differences.page_difference(committed, "") == "1 pictures, rebuilt 0"


def test_the_page_shows_the_hash_of_the_figures_as_expected_here() -> None:
    page = (ROOT / "reports/report.html").read_text()
    assert differences.PAGE_HASH_OF_FIGURES.search(page)
    assert differences.PAGE_PICTURE.search(page)
    assert differences.page_difference(page, page) is None


def test_texts_differ_first_in_a_line() -> None:
    assert differences.text_difference("a\nb\n", "a\nc\n") == "line 2: 'b', rebuilt 'c'"
    long = "x" * 500
    assert differences.text_difference(long + "b", long + "c") == (
        "line 1: 'xxxxxxxxxxb', rebuilt 'xxxxxxxxxxc'"
    )
    assert differences.text_difference("a\n", "a\nb\n") == "1 lines, rebuilt 2"
    assert differences.text_difference("a\n", "a") == "same lines, other bytes"


def test_folders_differ_first_in_a_file_by_number(tmp_path: Path) -> None:
    for side, changes in (("old", ()), ("new", ("seed10", "seed2"))):
        for seed in ("seed1", "seed2", "seed10"):
            (tmp_path / side / seed).mkdir(parents=True)
            value = np.array([1.5 if seed in changes else 1.0], np.float32)
            save_file({"w": value}, tmp_path / side / seed / "epoch01.safetensors")
    old, new = tmp_path / "old", tmp_path / "new"
    said = "first seed2/epoch01.safetensors: w[0] 1, rebuilt 1.5 (0.5)"
    assert differences.difference(old, new) == said
    (new / "seed1/epoch01.safetensors").unlink()
    assert differences.difference(old, new) == "seed1/epoch01.safetensors: missing"
    (old / "seed1/epoch01.safetensors").unlink()
    (new / "seed1/epoch02.safetensors").write_bytes(b"")
    said = "seed1/epoch02.safetensors: not among those committed"
    assert differences.difference(old, new) == said


def test_figures_of_another_rasterizer_are_the_same_picture(tmp_path: Path) -> None:
    for side, image in (("old", picture()), ("new", picture(rc=OTHER_LETTERS))):
        (tmp_path / side).mkdir()
        (tmp_path / side / "curves.png").write_bytes(image)
    old, new = tmp_path / "old", tmp_path / "new"
    md5s = differences.dvc_md5(old), differences.dvc_md5(new)
    assert verify.compared("reports/figures", *md5s, old, new).verdict == "same picture"
    (new / "curves.png").write_bytes(picture(marks=3))
    line = verify.compared("reports/figures", md5s[0], differences.dvc_md5(new), old, new)
    assert line.verdict == "differs"
    assert line.detail.startswith("first curves.png: around pixel")
    assert verify.compared("x", None, "a", old, new).detail == "not in the lock"
    assert verify.compared("x", "a", None, old, new).detail == "no stage makes it"


def test_a_content_hash_is_of_tensors_and_not_of_their_file(tmp_path: Path) -> None:
    values: Tensors = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}
    hashes = set()
    for number, (tensors, metadata) in enumerate(
        [(values, None), (dict(reversed(values.items())), {"made": "elsewhere"})]
    ):
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file, metadata)
        hashes.add(differences.content_hash(file))
    assert len(hashes) == 1
    for other in (
        values | {"w": values["w"].reshape(3, 2)},
        values | {"w": values["w"].view(np.int32)},
        {"v": values["w"], "n": values["n"]},
        values | {"n": np.array(8)},
    ):
        save_file(other, tmp_path / "other.safetensors")
        assert differences.content_hash(tmp_path / "other.safetensors") not in hashes
    assert set(differences.content_hash(tmp_path)) == {
        f"{name}.safetensors" for name in ("0", "1", "other")
    }


def test_receipts_are_compared_output_by_output() -> None:
    receipt = {
        "histories": {"reports/history/gn.csv": HISTORY.splitlines()},
        "outputs": {"models/gn": {"seed0": "a", "seed1": "b"}, "reports/metrics.json": "c"},
    }
    lines = verify.receipt_lines(receipt, receipt)
    assert [tuple(line) for line in lines] == [
        ("same", "reports/history/gn.csv", "3 epochs"),
        ("same", "models/gn", "2 files"),
        ("same", "reports/metrics.json", "c"),
    ]
    other = json.loads(json.dumps(receipt).replace("gn,1,1,0.015,0.6", "gn,1,1,0.015,0.7"))
    other["outputs"] = {"models/gn": {"seed0": "a", "seed1": "d"}, "reports/new.csv": "c"}
    lines = verify.receipt_lines(receipt, other)
    where = "first at variant gn, seed 1, epoch 1: val_loss 0.6, rebuilt 0.7 (+0.1)"
    assert [tuple(line) for line in lines] == [
        ("differs", "reports/history/gn.csv", where),
        ("differs", "models/gn", "seed1 b, rebuilt d"),
        ("differs", "reports/metrics.json", "c, rebuilt None"),
        ("differs", "reports/new.csv", "None, rebuilt c"),
    ]
    closing = verify.closing([verify.Line("differs", "a.json", "x"), *lines])
    assert closing == f"5 of 5 outputs differ, first reports/history/gn.csv: {where}"


def test_bad_words_are_refused() -> None:
    for words in (["large"], ["studies", "small"], ["pipeline", "--write"]):
        done = command(ROOT, "tools.verify", *words)
        assert done.returncode == 2
        assert "allowed" in done.stderr or "choose from" in done.stderr or "unrec" in done.stderr


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """A repository with a parameter and a metric, in which `make` finds all installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / ".gitignore").write_text("/.venv\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    (tmp_path / ".venv/installed").write_text("")
    (tmp_path / "params.yaml").write_text("epochs: 18\n")
    (tmp_path / "metrics.json").write_text('{"gn": {"accuracy": 0.99}}')
    (tmp_path / "dvc.yaml").write_text("params: [params.yaml]\nmetrics: [metrics.json]\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (
        ["git", "init", "-q", "-b", "main"],
        [".venv/bin/dvc", "init", "--quiet"],
        ["git", "add", "."],
        ["git", *identity, "commit", "-qm", "Begin"],
    ):
        subprocess.run(words, cwd=tmp_path, check=True)
    return tmp_path


def ci_report(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = ["make", "--silent", "ci-report", *words]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_ci_report_says_that_nothing_has_changed(reported: Path) -> None:
    done = ci_report(reported)
    assert done.stdout == (
        "## Parameters, against main\n\nno change\n\n## Metrics, against main\n\nno change\n"
    )
    assert done.returncode == 0


def test_ci_report_has_a_table_where_something_has(reported: Path) -> None:
    (reported / "metrics.json").write_text('{"gn": {"accuracy": 0.98}}')
    done = ci_report(reported)
    assert done.returncode == 0
    params, metrics = done.stdout.split("\n## Metrics, against main\n\n")
    assert params == "## Parameters, against main\n\nno change\n"
    assert "| metrics.json | gn.accuracy | 0.99 | 0.98 |" in " ".join(metrics.split())
    (reported / "params.yaml").write_text("epochs: 6\n")
    done = ci_report(reported)
    assert "| params.yaml | epochs | 18 | 6 |" in " ".join(done.stdout.split())
    assert "no change" not in done.stdout


def test_ci_report_fails_where_there_is_nothing_to_compare_with(reported: Path) -> None:
    done = ci_report(reported, "BASE=nowhere")
    assert done.returncode != 0
    assert "no change" not in done.stdout
    assert "unknown Git revision 'nowhere'" in done.stderr
