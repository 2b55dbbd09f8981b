"""Files that a person has placed in a folder, recognised by their content and not by their name."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from normlab.data import datasets
from normlab.data.datasets import Dataset, Pinned
from normlab.errors import InputError

README = "README.md"
# What desktops and editors leave behind, as in .dvcignore: DVC does not see these either.
LEFT_BEHIND = (
    ".DS_Store",
    "._*",
    ".directory",
    "Thumbs.db",
    "desktop.ini",
    "*~",
    ".*.sw[a-p]",
    ".#*",
    "#*#",
    ".idea",
    ".vscode",
    ".ipynb_checkpoints",
)
# A line with more would help nobody: somebody has unpacked thousands of pictures.
LISTED = 100
CHUNK = 1 << 20


def find(folder: Path, dataset: Dataset) -> dict[str, bytes]:
    """Take the files of a data set from a folder and all folders below it.

    Parameters
    ----------
    folder : Path
        Need not exist. `README` in it and `LEFT_BEHIND` anywhere are not looked at.
    dataset : Dataset
        Says what its files are. The same file may be there twice, and files may be missing; those
        of other registered data sets are passed over.

    Returns
    -------
    dict of str to bytes
        The uncompressed files that are there, by the names in `dataset.files`.

    Raises
    ------
    InputError
        If anything else is there: every such file, and what it is instead.
    """
    found: dict[str, bytes] = {}
    others = [pinned for one in datasets.known().values() for pinned in one.files.values()]
    unused = []
    for path in _files(folder):
        try:
            pinned, data = read(path, dataset.files.values())
        except InputError as reason:
            if not _is_one_of(path, others):
                unused.append(f"{_printable(path)} ({reason})")
        else:
            found |= {name: data for name, one in dataset.files.items() if one == pinned}
    if unused:
        rest = f" and {len(unused) - LISTED} more" if len(unused) > LISTED else ""
        raise InputError(
            f"cannot use {', '.join(unused[:LISTED])}{rest}; allowed in {folder}: the "
            f"{len(dataset.files)} files of {dataset.name}, plain or .gz, under any name; take "
            "away what is something else"
        )
    return found


def _is_one_of(path: Path, expected: Collection[Pinned]) -> bool:
    try:
        read(path, expected)
    except InputError:
        return False
    return True


def read(path: Path, expected: Collection[Pinned]) -> tuple[Pinned, bytes]:
    """Read a file that is one of those expected, plain or gzipped: say which, and unpack it.

    It holds no more of the file than one byte above the largest size expected, and does not read a
    plain file of another size. What follows in a .gz after the right bytes does not matter.

    Raises
    ------
    InputError
        If it is none of them: what it is, without its name.
    """
    sizes = {pinned.size for pinned in expected}
    limit = max(sizes) + 1
    data, broken = bytearray(), ""
    try:
        if not path.is_file():
            raise InputError("a folder, or a link to one" if path.is_dir() else "not a file")
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            length = raw.seek(0, os.SEEK_END)
            raw.seek(0)
            if not zipped and length not in sizes:
                raise InputError(f"got {length} bytes")
            with gzip.open(raw) if zipped else raw as stream:
                # By `read1`, what comes before an error is not lost with it.
                while part := stream.read1(min(CHUNK, limit - len(data))):
                    data += part
    except (OSError, EOFError, zlib.error) as error:
        broken = str(error)
    pinned = Pinned(len(data), hashlib.sha256(data).hexdigest())
    if pinned in expected:
        return pinned, bytes(data)
    if broken:
        raise InputError(f"cannot be read: {broken}")
    if len(data) in sizes:
        raise InputError(f"got SHA-256 {pinned.sha256}")
    raise InputError(f"got {f'more than {limit - 1}' if len(data) == limit else len(data)} bytes")


def _files(folder: Path) -> Iterator[Path]:
    """Yield all that is not a folder, in the order of names.

    A link to a folder is one thing and not followed: DVC, too, sees nothing of what is behind it.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{_printable(folder)}: cannot be read ({error})")

    if not folder.exists():
        return
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not _left_behind(name))
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(parent, name)
            if path != folder / README and not _left_behind(name):
                yield path


def _left_behind(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in LEFT_BEHIND)


def _printable(path: Path) -> str:
    """Return the path as it is, or escaped where it would break the line."""
    return str(path) if str(path).isprintable() else ascii(str(path))
