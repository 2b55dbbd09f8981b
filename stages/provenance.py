"""What is recorded is what ran: DVC notes a stage's code, data and parameters when it has ended.

An edit in between would be recorded as if it had run (treeverse/dvc#11058). So a stage notes all of
that as it begins, before it imports or reads it, compares as it ends, and fails where they differ.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from yaml import YAMLError

from normlab import yaml12
from normlab.errors import InputError

# Whose code enters results, numbers or pictures; docs/arithmetic.md says what of each.
PACKAGES = (
    *("altair", "jinja2", "markupsafe", "matplotlib", "numpy", "pandas", "pyyaml", "safetensors"),
    *("scipy", "torch", "vl-convert-python", "ziglang"),
)
LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
OTHER_LOCKS = ("../dvc.lock", "studies/dvc.lock")
GONE = "(not there)"
SHOWN = 5
Stage = dict[str, Any]


@contextmanager
def unchanged(*arguments: str) -> Iterator[None]:
    """Fail after the block if what DVC records of the stage with these arguments was changed in it.

    Raises
    ------
    InputError
        If something was changed, named in one line; if a table of the project beside this one is
        not as that one's lock file has it; or if DVC runs this and no `dvc.yaml` has the command,
        so that nothing says what it depends on.
    """
    stages = [stage for file in _pipelines() for stage in _stages(file, arguments)]
    if not stages and "DVC_STAGE" in os.environ:
        command = " ".join(["-m stages", *arguments])
        raise InputError(f"dvc.yaml: got no stage whose command ends in `{command}`, allowed: one")
    _forget_stale_code(stages)
    _refuse_altered(stages)
    before = _note(stages)
    yield
    after = _note(stages)
    names = before.keys() | after.keys()
    if changed := sorted(name for name in names if before.get(name) != after.get(name)):
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise InputError(
            f"{', '.join(changed[:SHOWN])}{more}: changed while the stage ran, allowed: no edit "
            "until it ends, since DVC would record it as what ran; run it again"
        )


def _pipelines() -> list[Path]:
    """Name the `dvc.yaml` files here, and in folders below that may have stages of this one."""
    return [path for path in (Path("dvc.yaml"), *Path().glob("*/dvc.yaml")) if path.exists()]


def _stages(file: Path, arguments: tuple[str, ...]) -> Iterator[Stage]:
    """Yield the stages of a `dvc.yaml` that run here by this command, each `foreach` unrolled."""
    for one in _yaml(file).get("stages", {}).values():
        for names in _unrolled(one.get("foreach", [None])):
            stage = _filled(one["do"], names) if "do" in one else one
            here = (file.parent / stage.get("wdir", ".")).resolve() == Path.cwd()
            words = str(stage["cmd"]).split()
            if here and words[-len(arguments) - 2 :] == ["-m", "stages", *arguments]:
                yield stage


def _unrolled(items: Any) -> Iterator[dict[str, str]]:
    """Yield what each item of a `foreach`, a list or a mapping, puts in place of which names."""
    pairs = items.items() if isinstance(items, dict) else ((item, item) for item in items)
    for key, item in pairs:
        inner = item.items() if isinstance(item, dict) else ()
        names = {"key": key, "item": item} | {f"item.{name}": value for name, value in inner}
        yield {f"${{{name}}}": str(value) for name, value in names.items()}


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, names): _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(name, text)
    return value


def _yaml(file: Path) -> dict[str, Any]:
    """Read a mapping; an empty one where there is none to read, of which DVC or the stage tells."""
    try:
        with file.open("rb") as stream:
            content = stream.read(yaml12.LARGEST + 1)
        found = yaml12.load(content.decode()) if len(content) <= yaml12.LARGEST else None
    except (OSError, UnicodeDecodeError, YAMLError):
        found = None
    return found if isinstance(found, dict) else {}


def _note(stages: list[Stage]) -> dict[str, str]:
    """Give the hash of every file that the stages depend on, and the values of their parameters."""
    noted = {}
    for stage in stages:
        for file in _files(stage):
            noted[str(file)] = _digest(file)
        for entry in stage.get("params", []):
            by_file = entry if isinstance(entry, dict) else {"params.yaml": [entry]}
            for name, keys in by_file.items():
                values = _yaml(Path(name))
                for key in keys or values:
                    noted[f"{name}: {key}"] = repr(_value(values, key))
    return noted


def _files(stage: Stage) -> Iterator[Path]:
    """Yield the files that a stage depends on; of folders, all that DVC would look at."""
    ignore = Path(".dvcignore")
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    ignored = [line.strip("\\/") for line in lines if line and not line.startswith("#")]
    for dep in map(Path, stage.get("deps", [])):
        found = dep.rglob("*") if dep.is_dir() else [dep]
        for path in found:
            inside = path.relative_to(dep).parts
            hidden = any(fnmatch(part, name) for part in inside for name in ignored)
            if not hidden and not path.is_dir():
                yield path


def _digest(path: Path, algorithm: str = "sha256") -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError:
        return GONE


def _value(values: Any, key: str) -> Any:
    """Look up a parameter; a dot leads into a section."""
    for part in key.split("."):
        values = values.get(part, GONE) if isinstance(values, dict) else GONE
    return values


def _refuse_altered(stages: list[Stage]) -> None:
    """Refuse what a project beside this one has made and its lock file knows otherwise.

    Of its own files DVC knows when one was altered, and has it made again.
    """
    read = {path.resolve(): path for stage in stages for path in _files(stage)}
    beside = [path for path in read.values() if path.parts[0] in ("..", "studies")]
    for lock in filter(Path.exists, map(Path, OTHER_LOCKS if beside else ())):
        for name, stage in _yaml(lock)["stages"].items():
            for out in stage.get("outs", []):
                path = read.get((lock.parent / out["path"]).resolve())
                if path and _digest(path, "md5") != out["md5"]:
                    raise InputError(
                        f"{path}: is not what {name} has made, as {lock} knows it, allowed: that; "
                        f"`dvc --cd {lock.parent} repro {name}` makes it again"
                    )


def _forget_stale_code(stages: list[Stage]) -> None:
    """Remove bytecode that was compiled in the second of its source's last edit, or before it.

    Python knows a source by its size and the second of its edit, and would run the one before.
    """
    files = {path for stage in stages for path in _files(stage)}
    for source in (path for path in files if path.suffix == ".py" and path.exists()):
        compiled = Path(cache_from_source(source))
        # A second more, for what was read before that edit and written after it.
        if compiled.exists() and compiled.stat().st_mtime < int(source.stat().st_mtime) + 2:
            compiled.unlink(missing_ok=True)


def tell_of_other_packages() -> None:
    """Say in one line on standard error which of `PACKAGES` are not in a version of the lock."""
    others, lock = [], LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    for name in PACKAGES:
        locked = re.findall(rf"(?m)^{name}==(\S+)", lock)
        if (here := _version(name)) not in locked:
            others.append(f"{name} {here} (locked: {' or '.join(locked) or 'none'})")
    if others:
        line = f"not the packages of requirements.lock: {', '.join(others)}; whether the results"
        print(f"{line} are the same, `make verify BUDGET=small` tells", file=sys.stderr)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
