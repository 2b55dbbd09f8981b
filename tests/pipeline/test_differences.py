"""What `make verify` says of two outputs that differ."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tools import differences, verify

ROOT = verify.ROOT
Tensors = dict[str, NDArray[Any]]

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
    rows = "study,variant,gn_groups,seed,test_loss\ngroups,gn,1,0,0.2\ngroups,gn,1,1,0.3\n"
    assert differences.table_difference(rows, rows.replace("0.3", "0.25")) == (
        "first at row 2, study groups, variant gn, gn_groups 1, seed 1: "
        "test_loss 0.3, rebuilt 0.25 (-0.05)"
    )
    rows = "study,variant,label,mean\nmain,gn,Group norm,0.2\n"
    assert differences.table_difference(rows, rows.replace("0.2", "0.3")) == (
        "first at row 1: mean 0.2, rebuilt 0.3 (+0.1)"
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
