"""A folder of one's own: real letters, what is recorded of them, and what is refused."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normlab import files
from normlab.data import datasets, idx, own
from normlab.errors import InputError
from normlab.network.architecture import REFERENCE
from stages import download
from tests.data import letters
from tests.data.conftest import NAMES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    letters.write(folder)
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "letters"))


def images(count: int, height: int = 24, width: int = 24) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width), dtype=np.uint8)


def replace(folder: Path, **arrays: np.ndarray) -> None:
    """Put other arrays in place of files, which are named by split and kind, plain."""
    for key, array in arrays.items():
        split, _, kind = key.partition("_")
        name = datasets.SPLITS[split][kind == "labels"]
        (folder / f"{name}.gz").unlink(missing_ok=True)
        (folder / name).write_bytes(idx.encode(array))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        own.read(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_the_record_says_what_the_letters_are(folder: Path) -> None:
    record, contents = own.read(folder)
    assert (record.name, record.noun, record.classes, record.side) == ("letters", "image", 26, 24)
    assert record.names[:3] == ("0", "1", "2")
    train = idx.decode(contents[TRAIN_IMAGES]) / 255
    assert record.mean == pytest.approx(train.mean(), abs=5e-5)
    assert record.std == pytest.approx(train.std(), abs=5e-5)
    assert record.training_images == len(train) == 2 * 26 * 6
    assert {name: len(data) for name, data in contents.items()} == {
        name: pinned.size for name, pinned in record.files.items()
    }


def test_the_constants_of_mnists_record_are_what_is_customary() -> None:
    assert {name: REFERENCE._asdict()[name] for name in datasets.MNIST.asks} == datasets.MNIST.asks
    squares = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(1001, 0)
    assert own.spread(squares) == (0.5, round(float((squares[0] / 255).std()), 4))


def test_hashes_are_recorded_on_first_use_for_sha256sum(folder: Path) -> None:
    own.read(folder)
    recorded = (folder / own.SUMS).read_bytes()
    lines = [f"{digest}  {name}" for name, digest in letters.sums(folder).items()]
    assert sorted(recorded.decode().splitlines()) == sorted(lines)
    if tool := shutil.which("sha256sum"):
        subprocess.run([tool, "--check", "--strict", own.SUMS], cwd=folder, check=True)
    own.read(folder)
    assert (folder / own.SUMS).read_bytes() == recorded


def test_a_file_that_has_changed_is_refused_until_its_line_is_deleted(folder: Path) -> None:
    own.read(folder)
    sums = folder / own.SUMS
    before = letters.sums(folder)[TEST_LABELS]
    labels = idx.decode((folder / TEST_LABELS).read_bytes())
    replace(folder, test_labels=labels[::-1].copy())
    after = letters.sums(folder)[TEST_LABELS]
    assert refusal(folder) == (
        f"{folder / TEST_LABELS}: got SHA-256 {after}, allowed: {before}, recorded when it was "
        f"first used; to take the new file, delete its line in {sums}"
    )
    lines = [line for line in sums.read_text().splitlines() if TEST_LABELS not in line]
    sums.write_text("\n".join(lines) + "\n")
    own.read(folder)
    assert len(sums.read_text().splitlines()) == 4
    assert after in sums.read_text()


def test_nothing_is_recorded_of_what_is_refused(folder: Path) -> None:
    replace(folder, test_labels=np.zeros(3, np.uint8))
    refusal(folder)
    assert not (folder / own.SUMS).exists()


def test_a_record_that_is_none_is_refused(folder: Path) -> None:
    (folder / own.SUMS).write_text("# mine\n")
    assert refusal(folder) == (
        f"{folder / own.SUMS}, line 1: got '# mine', allowed: a SHA-256, two spaces, a name"
    )


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return damage


def other(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: replace(folder, **arrays)


ZEROS, TEST = np.zeros(312, np.uint8), np.zeros(156, np.uint8)


@pytest.mark.parametrize(
    ("damage", "where", "said"),
    [
        (
            without(TRAIN_LABELS),
            "",
            f": got no {TRAIN_LABELS}, allowed: {TRAIN_LABELS} or {TRAIN_LABELS}.gz",
        ),
        (
            put(TRAIN_IMAGES, b""),
            "",
            f": got {TRAIN_IMAGES} and {TRAIN_IMAGES}.gz, allowed: {TRAIN_IMAGES} or "
            f"{TRAIN_IMAGES}.gz",
        ),
        (put(TRAIN_LABELS, b"?"), TRAIN_LABELS, ": IDX: got magic number 3f, allowed: 00000801 or"),
        (
            put(f"{TEST_IMAGES}.gz", gzip.compress(b"what")[:-9]),
            f"{TEST_IMAGES}.gz",
            ": cannot be read (",
        ),
        (other(train_labels=images(312)), TRAIN_LABELS, ": got 3 dimensions, allowed: 1"),
        (
            other(train_images=images(5)),
            TRAIN_LABELS,
            ": got 312 labels, allowed: 5, one for each image",
        ),
        (
            other(train_images=images(312, 24, 25)),
            TRAIN_IMAGES,
            ": got images of 24 by 25 pixels, allowed: squares with a side from 18 to 128",
        ),
        (
            other(train_images=images(312, 17, 17)),
            TRAIN_IMAGES,
            ": got images of 17 by 17 pixels, allowed: squares with a side from 18 to 128",
        ),
        (
            other(test_images=images(156, 28, 28)),
            TEST_IMAGES,
            ": got images of 28 by 28 pixels, allowed: 24 by 24, as those for training",
        ),
        (
            other(test_images=images(0), test_labels=ZEROS[:0]),
            TEST_IMAGES,
            ": got 0 images, allowed: 1 or more",
        ),
        (
            other(train_images=images(1), train_labels=ZEROS[:1]),
            TRAIN_IMAGES,
            ": got 1 images, allowed: 2 or more",
        ),
        (
            other(train_labels=ZEROS, test_labels=TEST),
            TRAIN_LABELS,
            ": got no label but 0, allowed: two classes or more",
        ),
        (
            other(test_labels=TEST + 26),
            TEST_LABELS,
            ": got the label 26, allowed: 0 to 25, as those for training",
        ),
        (
            other(train_images=np.zeros((312, 24, 24), np.uint8)),
            TRAIN_IMAGES,
            ": got pixels that are all alike, allowed: pictures",
        ),
    ],
)
def test_what_the_network_cannot_take_gets_one_line(
    folder: Path, damage: Callable[[Path], None], where: str, said: str
) -> None:
    damage(folder)
    assert refusal(folder).startswith(f"{folder / where}{said}")


def test_the_ends_of_what_is_allowed_are_allowed(folder: Path) -> None:
    least, most = own.SIDES
    for side, classes in ((least, 2), (most, 256)):
        labels = np.arange(classes, dtype=np.uint8)
        replace(
            folder,
            train_images=images(classes, side, side),
            train_labels=labels,
            test_images=images(1, side, side),
            test_labels=labels[-1:],
        )
        (folder / own.SUMS).unlink(missing_ok=True)
        record, _ = own.read(folder)
        assert (record.side, record.classes) == (side, classes)
    smallest = REFERENCE._replace(side=least)
    assert smallest.shapes[-1][1] == 1
    assert smallest._replace(side=least - 1).shapes[-1][1] == 0


def with_dataset(folder: Path, value: str) -> None:
    text = PARAMS.read_text().replace("dataset: mnist ", f"dataset: {value} ")
    assert value in text
    (folder / "params.yaml").write_text(text)


@pytest.mark.parametrize("absolute", [False, True])
def test_the_stage_writes_splits_that_know_what_they_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with_dataset(tmp_path, str(folder) if absolute else "letters")
    download.main()
    record, contents = own.read(folder)
    for split in datasets.SPLITS:
        directory = download.DATA / split
        told = files.read_json(directory / datasets.DESCRIPTION)
        assert list(told["files"]) == list(datasets.SPLITS[split]), "nothing of the other split's"
        assert datasets.read(directory)._replace(files=record.files) == record
        found, labels = datasets.read_split(directory, split)
        images_name, labels_name = datasets.SPLITS[split]
        np.testing.assert_array_equal(found, idx.decode(contents[images_name]))
        np.testing.assert_array_equal(labels, idx.decode(contents[labels_name]))


def test_what_is_no_data_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_dataset(tmp_path, "fashion")
    with pytest.raises(InputError) as raised:
        download.main()
    assert str(raised.value) == (
        "dataset: got fashion, which is not a folder, allowed: mnist, fashion_mnist, or the path "
        "of a folder with four IDX files"
    )


@pytest.mark.parametrize("text", ['{"dataset": "?"}', '{"dataset": []}', "{}", '{"files": 1}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / datasets.DESCRIPTION).write_text(text)
    with pytest.raises(InputError, match="is no description of a data set; run the download stage"):
        datasets.read(tmp_path)


def test_a_registered_data_set_is_described_by_its_name() -> None:
    told = [datasets.description(one, "train") for one in datasets.known().values()]
    assert told == [{"dataset": "mnist"}, {"dataset": "fashion_mnist"}]
    assert json.loads(json.dumps(told)) == told
    assert list(datasets.FASHION_MNIST.files) == NAMES
