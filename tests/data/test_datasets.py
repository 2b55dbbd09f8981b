import hashlib
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from normlab.data import datasets, idx, validation
from normlab.errors import InputError

idx_arrays = arrays(
    np.uint8,
    st.one_of(
        array_shapes(min_dims=1, max_dims=1, min_side=0, max_side=50),
        array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=6),
    ),
)


@given(idx_arrays)
def test_idx_round_trip(array: NDArray[np.uint8]) -> None:
    decoded = idx.decode(idx.encode(array))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, array, strict=True)


def test_idx_layout_is_the_published_one() -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    data = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 4) + bytes(range(24))
    assert idx.encode(images) == data
    assert idx.encode(images[0, 0]) == bytes([0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 2, 3])
    # Views that are not contiguous are written in C order all the same.
    np.testing.assert_array_equal(idx.decode(idx.encode(images.T)), images.T)


@given(idx_arrays, st.data())
def test_idx_of_any_other_length_is_refused(array: NDArray[np.uint8], data: st.DataObject) -> None:
    encoded = idx.encode(array)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=9))
    for wrong in (encoded[:cut], encoded + extra):
        with pytest.raises(InputError, match=r"^IDX: got .*(expected|allowed)"):
            idx.decode(wrong)


@given(idx_arrays, st.integers(0, 15), st.integers(1, 255))
def test_idx_with_a_changed_header_is_refused(
    array: NDArray[np.uint8], position: int, flip: int
) -> None:
    encoded = bytearray(idx.encode(array))
    header = 4 + 4 * array.ndim
    encoded[position % header] ^= flip
    try:
        decoded = idx.decode(bytes(encoded))
    except InputError:
        return
    # A changed size is invisible only where another is zero, and one dimension for three only
    # where the values begin with two sizes that fit.
    assert decoded.size == 0 or decoded.ndim != array.ndim


@given(st.sampled_from([b"", b"\0\0\x08\x01", b"\0\0\x08\x03"]), st.binary(max_size=64))
def test_idx_of_noise_is_refused_or_read_whole(magic: bytes, noise: bytes) -> None:
    with suppress(InputError):
        assert idx.encode(idx.decode(magic + noise)) == magic + noise


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2), np.uint8)])
def test_encoding_refuses_what_decoding_would(array: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="allowed: uint8 of 1 or 3"):
        idx.encode(array)


IMAGES = np.arange(5 * 28 * 28).reshape(5, 28, 28).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images as the training split, pinned instead of the real ones."""
    (tmp_path / datasets.DESCRIPTION).write_text('{"dataset": "mnist"}')
    for name, array in zip(datasets.MNIST.splits["train"], (IMAGES, LABELS), strict=True):
        data = idx.encode(array)
        pinned = datasets.Pinned(len(data), hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(datasets.MNIST.files, name, pinned)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_read_split(split: Path) -> None:
    images, labels = datasets.read_split(split, "train")
    np.testing.assert_array_equal(images, IMAGES, strict=True)
    np.testing.assert_array_equal(labels, LABELS, strict=True)


@pytest.mark.parametrize("name", datasets.MNIST.splits["train"])
@pytest.mark.parametrize("fault", ["missing", "directory", "empty", "truncated", "longer", "bit"])
def test_read_split_refuses_a_file_with_a_fault(split: Path, name: str, fault: str) -> None:
    path = split / name
    data = path.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    contents = {"empty": b"", "truncated": data[:-1], "longer": data + b"\0", "bit": flipped}
    if fault in contents:
        path.write_bytes(contents[fault])
        expected = {
            "empty": f"got 0 bytes, expected {len(data)}",
            "truncated": f"got {len(data) - 1} bytes, expected {len(data)}",
            "longer": f"got more bytes, expected {len(data)}",
            "bit": f"got SHA-256 {hashlib.sha256(flipped).hexdigest()}, "
            f"expected {hashlib.sha256(data).hexdigest()}",
        }[fault]
    else:
        path.unlink()
        expected = "cannot be read (No such file or directory)"
        if fault == "directory":
            path.mkdir()
            expected = "cannot be read (Is a directory)"
    with pytest.raises(InputError) as raised:
        datasets.read_split(split, "train")
    assert str(raised.value) == f"{split}: {name}: {expected}; run the download stage again"


sizes = st.integers(2, 400).flatmap(
    lambda count: st.tuples(st.just(count), st.integers(1, count - 1))
)


@given(sizes, st.data())
def test_train_val_split_divides_the_images(size: tuple[int, int], data: st.DataObject) -> None:
    count, val_size = size
    train, val = validation.train_val_split(count, val_size, None)
    assert train.dtype == val.dtype == np.int64
    assert len(val) == val_size
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(count))

    train_size = data.draw(st.integers(1, count - val_size))
    fewer, same_val = validation.train_val_split(count, val_size, train_size)
    np.testing.assert_array_equal(same_val, val)
    np.testing.assert_array_equal(fewer, train[:train_size])


@given(sizes)
def test_folds_divide_the_images(size: tuple[int, int]) -> None:
    count, val_size = size
    folds = [
        validation.train_val_split(count, val_size, None, fold) for fold in range(count // val_size)
    ]
    for train, val in folds:
        assert {train.dtype, val.dtype} == {np.dtype(np.int64)}
        assert len(val) == val_size
        np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(count))
    validated = np.concatenate([val for _, val in folds])
    assert len(set(validated.tolist())) == len(folds) * val_size
    # The folds are slices of one permutation, which begins as it does without them.
    train, val = folds[0]
    np.testing.assert_array_equal(np.concatenate([val, train])[: len(validated)], validated)


def test_train_val_split_keeps_to_its_images() -> None:
    # A split that moved would make every committed result incomparable.
    train, val = validation.train_val_split(60_000, 5_000, 1_000)
    assert val[:5].tolist() == [39256, 10959, 44821, 42252, 41040]
    assert train[:5].tolist() == [16268, 52355, 10519, 12415, 1123]
    assert len(train) == 1_000
    last, of_last = validation.train_val_split(60_000, 5_000, 1_000, fold=11)
    assert of_last[:5].tolist() == [54766, 53933, 22384, 57536, 25018]
    assert last[:5].tolist() == val[:5].tolist()


@pytest.mark.parametrize(
    ("val_size", "train_size", "message"),
    [
        (0, None, "val_size: got 0, allowed: from 1 to 9"),
        (10, None, "val_size: got 10, allowed: from 1 to 9"),
        (-1, 1, "val_size: got -1, allowed: from 1 to 9"),
        (4, 0, "train_size: got 0, allowed: null or from 1 to 6 (10 images less a val_size of 4)"),
        (4, 7, "train_size: got 7, allowed: null or from 1 to 6 (10 images less a val_size of 4)"),
    ],
)
def test_train_val_split_refuses_the_impossible(
    val_size: int, train_size: int | None, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        validation.train_val_split(10, val_size, train_size)
    assert str(raised.value) == message


@pytest.mark.parametrize("fold", [-1, 3])
def test_a_fold_too_many_is_refused(fold: int) -> None:
    with pytest.raises(InputError) as raised:
        validation.train_val_split(10, 3, None, fold)
    assert str(raised.value) == f"fold: got {fold}, allowed: from 0 to 2 (10 images, 3 in each)"
