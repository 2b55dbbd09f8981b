"""What stages do with files: atomic writes, checkpoints."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from normlab import files
from normlab.training import checkpoints, machine, trial
from normlab.training.recipe import Data, Images, State
from tests.conftest import PART, make_recipe
from tests.network.harness import KINDS, use
from tests.training.test_trial import equal


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with files.directory(target) as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(FileNotFoundError), files.directory(target) as fresh:
        (fresh / "no" / "folder").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]
    with files.directory(target) as fresh:
        (fresh / "c").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "c"]


def test_a_failed_file_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "metrics.json"
    files.write_metrics(target, {"b": 0.123456789, "a": {"n": 3, "none": None, "word": "better"}})
    text = target.read_text()
    expected = {"b": 0.12346, "a": {"n": 3, "none": None, "word": "better"}}
    assert json.loads(text) == expected
    assert list(json.loads(text)) == ["b", "a"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_metrics(target, {"b": float("nan")})
    with pytest.raises(TypeError):
        files.write(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o644


def test_an_interrupt_that_comes_when_a_file_is_in_place_is_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file = Path.replace

    def interrupted(self: Path, target: Path) -> None:
        replace_file(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "file", b"content")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"content"]


def test_tables_have_six_digits_and_plain_newlines(tmp_path: Path) -> None:
    files.write_table(tmp_path / "t.csv", pd.DataFrame({"n": [1, 2], "x": [1 / 3, 1e-9]}))
    assert (tmp_path / "t.csv").read_bytes() == b"n,x\n1,0.333333\n2,1e-09\n"


def test_tables_are_read_as_written(tmp_path: Path) -> None:
    """To the last bit of a number, and to the last digit of a digest that looks like one."""
    numbers = [0.98, 0.996517, 1.23456e-07, 5.43211e-05, 123456.0]
    digests = ["00123456", "12e99999", "0e1", "123456789012345678901", "ffffffff"]
    frame = pd.DataFrame({"x": numbers, "weights": digests})
    files.write_table(tmp_path / "t.csv", frame)
    read = files.read_table(tmp_path / "t.csv")
    assert read["x"].tolist() == numbers
    assert read["weights"].tolist() == digests


def test_an_interrupted_trial_goes_on_to_the_same_end(tmp_path: Path, noise: Data) -> None:
    recipe = make_recipe(epochs=3)
    folder = checkpoints.folder(tmp_path, recipe, PART, "images", "engine")
    state = trial.start(recipe, 4)
    uninterrupted = []
    for _ in range(3):
        state = trial.train_epoch(recipe, state, noise)
        uninterrupted.append(state)
    for state in uninterrupted[:2]:
        checkpoints.save_state(folder, state)
    loaded = checkpoints.load_states(folder, 4, 3)
    assert len(loaded) == 2
    assert all(equal(one, other) for one, other in zip(loaded, uninterrupted, strict=False))
    assert equal(trial.train_epoch(recipe, loaded[-1], noise), uninterrupted[2])
    assert checkpoints.load_states(folder, 5, 3) == []


def test_checkpoints_of_anything_else_are_not_used(tmp_path: Path, noise_split: Images) -> None:
    recipe = make_recipe()
    image, label = noise_split.images.copy(), noise_split.labels.copy()
    image[-1, 0, 0] ^= 1
    label[-1] ^= 1
    others = (noise_split._replace(images=image), noise_split._replace(labels=label))
    ours, *digests = (checkpoints.digest(one) for one in (noise_split, *others))
    folders = {
        checkpoints.folder(tmp_path, recipe, PART, ours, "engine 1"),
        checkpoints.folder(tmp_path, replace(recipe, lr=0.01), PART, ours, "engine 1"),
        *(checkpoints.folder(tmp_path, recipe, PART, digest, "engine 1") for digest in digests),
        checkpoints.folder(tmp_path, recipe, PART._replace(val_size=20), ours, "engine 1"),
        checkpoints.folder(tmp_path, recipe, PART._replace(train_size=50), ours, "engine 1"),
        checkpoints.folder(tmp_path, recipe, PART._replace(fold=1), ours, "engine 1"),
        checkpoints.folder(tmp_path, recipe, PART, ours, "engine 2"),
        checkpoints.folder(tmp_path, recipe, PART, ours, "cuda"),
    }
    assert len(folders) == 9
    copied = checkpoints.digest(Images(noise_split.images.copy(), noise_split.labels.copy()))
    assert checkpoints.folder(tmp_path, make_recipe(), PART, copied, "engine 1") in folders


def test_checkpoints_may_move_between_kinds_of_processor(
    tmp_path: Path, noise: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    states: list[State] = []
    folders = set()
    for kind in KINDS:
        use(kind, monkeypatch)
        found = machine.resolve(recipe)
        assert kind.name in found.name
        folders.add(checkpoints.folder(tmp_path, recipe, PART, "images", found.arithmetic))
        state = states[-1] if states else trial.start(recipe, 0)
        if len(states) < recipe.epochs:
            states.append(trial.train_epoch(recipe, state, noise))
    assert len(folders) == 1
    use(KINDS[0], monkeypatch)
    for state, after in itertools.pairwise([trial.start(recipe, 0), *states]):
        assert equal(trial.train_epoch(recipe, state, noise), after)
