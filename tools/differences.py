"""Where two versions of an output first differ, and by how much; and hashes of outputs.

Nothing is run here: files are read and compared. A description of a difference gives the committed
value first, then the rebuilt one.
"""

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray

from normlab import files

# Another rasterizer gives letters and lines slightly other edges. That hardly changes the mean
# colour of a square of this size, as a mark that is missing or elsewhere does.
SQUARE = 16  # pixels
TOLERANCE = 24  # of 255, for the mean of red, green and blue each

PAGE_PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
PAGE_HASH_OF_FIGURES = re.compile(r"(<td>reports/figures</td><td><code>)[0-9a-f]{32}\.dir")


def dvc_md5(path: Path) -> str:
    """MD5 of a file or, as DVC has it, of a folder: of a list of its files with theirs."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    found = sorted((file for file in path.rglob("*") if file.is_file()), key=lambda f: f.parts)
    listing = [{"md5": dvc_md5(f), "relpath": f.relative_to(path).as_posix()} for f in found]
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def content_hash(path: Path) -> str | dict[str, str]:
    """SHA-256 of a file, or of each file of a folder by its name; of tensors, of what they hold."""
    if path.is_dir():
        return {name: str(content_hash(path / name)) for name in names(path)}
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for name, array in sorted(files.read_tensors(path).items()):
        # Little-endian on every machine.
        ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode() + ordered.tobytes())
    return digest.hexdigest()


def names(folder: Path) -> list[str]:
    """Name the files of a folder in order, with numbers in theirs: seed2 before seed10."""
    found = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
    return sorted(found, key=_by_number)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def difference(committed: Path, rebuilt: Path) -> str | None:
    """Say where two files or folders of different bytes first differ, and by how much.

    Returns
    -------
    str or None
        None if they differ as pictures do across platforms, by what is not to be seen.
    """
    if committed.is_dir():
        return _folder_difference(committed, rebuilt)
    match committed.suffix:
        case ".csv":
            return table_difference(files.read_text(committed), files.read_text(rebuilt))
        case ".json":
            old, new = (json.loads(files.read_text(file)) for file in (committed, rebuilt))
            return json_difference(old, new) or "same values, other bytes"
        case ".safetensors":
            return tensor_difference(files.read_tensors(committed), files.read_tensors(rebuilt))
        case ".png":
            return picture_difference(pixels(committed.read_bytes()), pixels(rebuilt.read_bytes()))
        case ".html":
            return page_difference(files.read_text(committed), files.read_text(rebuilt))
        case _:
            return text_difference(files.read_text(committed), files.read_text(rebuilt))


def _folder_difference(committed: Path, rebuilt: Path) -> str | None:
    old, new = names(committed), names(rebuilt)
    for name in sorted({*old, *new}, key=_by_number):
        if name not in old or name not in new:
            return f"{name}: {'missing' if name in old else 'not among those committed'}"
        files = committed / name, rebuilt / name
        if files[0].read_bytes() != files[1].read_bytes():
            detail = difference(*files)
            if detail:
                return f"first {name}: {detail}"
    return None


def table_difference(committed: str, rebuilt: str) -> str:
    """Find the first row of a CSV file that differs, and in it the number that differs most.

    A row of a history is named by the columns that it begins with: study, variant, what the study
    changes, seed and epoch. One of another table is named by its number, and by those it has.
    """
    old, new = (list(csv.reader(io.StringIO(text))) for text in (committed, rebuilt))
    header = old[0] if old else []
    if not new or new[0] != header:
        return f"columns {','.join(header)}, rebuilt {','.join(new[0] if new else [])}"
    for number, (row, other) in enumerate(zip(old[1:], new[1:], strict=False), 1):
        if row != other:
            before, after = (dict(zip(header, one, strict=True)) for one in (row, other))
            where = [f"{key} {before[key]}" for key in _keys(header) if before[key]]
            if "epoch" not in header:
                where.insert(0, f"row {number}")
            return f"first at {', '.join(where)}: {_largest(before, after)}"
    if len(old) != len(new):
        return f"{len(old) - 1} rows, rebuilt {len(new) - 1}"
    return "same values, other bytes"


def _keys(header: Sequence[str]) -> Sequence[str]:
    """Take the columns up to the epoch, or else up to the seed."""
    for last in ("epoch", "seed"):
        if last in header:
            return header[: header.index(last) + 1]
    return []


def _largest(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    changed = [key for key in before if before[key] != after[key]]
    amounts = {}
    for key in changed:
        # A digest may consist of digits.
        if key != "weights" and (amount := _change(before[key], after[key])) is not None:
            amounts[key] = amount
    if not amounts and changed == ["weights"]:
        return "weights differ, all figures agree to six digits"
    key = max(amounts, key=lambda k: _magnitude(amounts[k])) if amounts else changed[0]
    by = f" ({amounts[key]:+.3g})" if amounts else ""
    return f"{key} {before[key]}, rebuilt {after[key]}{by}"


def _change(before: str, after: str) -> float | None:
    """Say by how much a value has changed, if it was and is a number."""
    try:
        return float(after) - float(before)
    except ValueError:
        return None


def _magnitude(amount: float) -> float:
    return math.inf if math.isnan(amount) else abs(amount)


def json_difference(
    committed: object, rebuilt: object, where: str = "", second: str = "rebuilt"
) -> str | None:
    """Find the first key whose value differs; None if all are the same.

    Parameters
    ----------
    where
        The key that both values have, with those above it.
    second
        What to call the second value.
    """
    if isinstance(committed, list) and isinstance(rebuilt, list):
        committed, rebuilt = dict(enumerate(committed)), dict(enumerate(rebuilt))
    if isinstance(committed, dict) and isinstance(rebuilt, dict):
        for key in dict.fromkeys([*committed, *rebuilt]):
            name = f"{where}.{key}".removeprefix(".")
            if key not in committed or key not in rebuilt:
                gone = key in committed
                return f"{name} {'missing' if gone else 'not among those committed'}"
            if detail := json_difference(committed[key], rebuilt[key], name, second):
                return detail
        return None
    if committed == rebuilt:
        return None
    by = ""
    if isinstance(committed, int | float) and isinstance(rebuilt, int | float):
        by = f" ({rebuilt - committed:+.3g})"
    return f"{where} {committed}, {second} {rebuilt}{by}".strip()


def tensor_difference(
    committed: Mapping[str, NDArray[Any]], rebuilt: Mapping[str, NDArray[Any]]
) -> str:
    """Find the element of all tensors that differs most."""
    worst, said = -1.0, "same tensors, other bytes"
    for name in sorted({*committed, *rebuilt}):
        old, new = committed.get(name), rebuilt.get(name)
        if old is None or new is None:
            return f"{name} {'not among those committed' if old is None else 'missing'}"
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            return f"{name} {old.dtype}{old.shape}, rebuilt {new.dtype}{new.shape}"
        if old.tobytes() == new.tobytes():
            continue
        with np.errstate(invalid="ignore"):
            amounts = np.abs(new.astype(np.float64) - old.astype(np.float64)).reshape(-1)
        same = (old == new) | (np.isnan(old) & np.isnan(new))
        amounts[same.reshape(-1)] = 0
        amounts[np.isnan(amounts)] = np.inf
        index = int(amounts.argmax())
        if amounts[index] > worst:
            worst = float(amounts[index])
            values = (f"{array.reshape(-1)[index]:.9g}" for array in (old, new))
            said = f"{name}[{index}] {', rebuilt '.join(values)} ({worst:.3g})"
    return said


def pixels(png: bytes) -> NDArray[np.float64]:
    """Red, green and blue of an image, (height, width, 3), from 0 to 255."""
    image = np.atleast_3d(imread(io.BytesIO(png)))
    colours = image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, axis=2)
    return colours.astype(np.float64) * 255


def picture_difference(committed: NDArray[np.float64], rebuilt: NDArray[np.float64]) -> str | None:
    """Compare two images, each (height, width, 3), by their means over squares.

    Returns
    -------
    str or None
        None if they have the same size and no mean differs by more than `TOLERANCE`.
    """
    if committed.shape != rebuilt.shape:
        sizes = (f"{width} x {height}" for height, width, _ in (committed.shape, rebuilt.shape))
        return f"{', rebuilt '.join(sizes)} pixels"
    means = np.abs(_square_means(committed) - _square_means(rebuilt)).max(axis=2)
    row, column = np.unravel_index(means.argmax(), means.shape)
    if means[row, column] <= TOLERANCE:
        return None
    return (
        f"around pixel ({column * SQUARE}, {row * SQUARE}) by {means[row, column]:.0f} of 255, "
        f"allowed: {TOLERANCE}"
    )


def _square_means(image: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width, _ = image.shape
    rows, columns = np.arange(0, height, SQUARE), np.arange(0, width, SQUARE)
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return np.asarray(sums / counts[..., None])


def page_difference(committed: str, rebuilt: str) -> str | None:
    """Compare two reports: pictures in them as pictures, but for the hash of the figures."""
    old, new = (PAGE_PICTURE.findall(page) for page in (committed, rebuilt))
    if len(old) != len(new):
        return f"{len(old)} pictures, rebuilt {len(new)}"
    for number, pair in enumerate(zip(old, new, strict=True), 1):
        detail = picture_difference(*(pixels(base64.b64decode(one)) for one in pair))
        if detail:
            return f"picture {number}: {detail}"
    texts = [
        PAGE_HASH_OF_FIGURES.sub(r"\1", PAGE_PICTURE.sub("", page)) for page in (committed, rebuilt)
    ]
    return None if texts[0] == texts[1] else text_difference(*texts)


def text_difference(committed: str, rebuilt: str) -> str:
    """Find the first line that differs, and where in it."""
    old, new = committed.splitlines(), rebuilt.splitlines()
    for number, (line, other) in enumerate(zip(old, new, strict=False), 1):
        if line != other:
            common = takewhile(lambda pair: pair[0] == pair[1], zip(line, other, strict=False))
            start = max(len(list(common)) - 10, 0)
            shown = (repr(one[start : start + 40]) for one in (line, other))
            return f"line {number}: {', rebuilt '.join(shown)}"
    if len(old) != len(new):
        return f"{len(old)} lines, rebuilt {len(new)}"
    return "same lines, other bytes"
