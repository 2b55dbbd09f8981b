"""Does this machine compute what is committed? Run it all again, elsewhere, and compare.

    python -m tools.verify            the pipeline, against dvc.lock
    python -m tools.verify studies    the same, the studies and the report, against all lock files
    python -m tools.verify small      the pipeline with a budget of seconds, against a receipt

What is run is a copy, in a temporary folder, of the files that Git knows or would add, as they are
here: without uncommitted changes, that is the last commit. No output is copied but the data, which
are checked by their hashes, and DVC's cache there is its own and empty, so nothing else can come
from an earlier run. Every output gets a line on standard output; progress goes to standard error.
The exit code is 1 if an output differs.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from normlab import files
from normlab.data import datasets, placed
from normlab.errors import InputError, exit_on_input_error
from normlab.params import mapping
from tools import dvc
from tools.differences import content_hash, difference, dvc_md5, json_difference, table_difference
from tools.git import PROJECTS, copy_history, copy_known, git

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ("dvc.yaml", "studies/dvc.yaml", "reports/dvc.yaml")
PIPELINES = {"pipeline": STUDIES[:1], "studies": STUDIES}
PARAMS = Path("params.yaml")
RECEIPT = Path("tests/receipt.json")
RECEIPT_KEYS = {"parameters", "budget", "histories", "outputs"}
HISTORIES = "reports/history/"
# The last batch of an epoch is partial, and neither it nor the validation images fill all lanes.
BUDGET: dict[str, Any] = {"seeds": [0, 1], "epochs": 2, "train_size": 1001, "val_size": 499}
# Figures are left out: other fonts and rasterizers draw them with other bytes.
LAST_STAGE = "evaluate"


class Line(NamedTuple):
    """What is said of an output: `same`, `same picture` or `differs`; its path; where, how much."""

    verdict: str
    path: str
    detail: str


def main() -> None:
    """Run what the command line asks for; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="tools.verify", description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=[*PIPELINES, "small"], default="pipeline")
    parser.add_argument("--write", action="store_true", help=f"small: write {RECEIPT} instead")
    arguments = parser.parse_args()
    if arguments.write and arguments.what != "small":
        parser.error("--write: allowed with small only")
    if arguments.write:
        receipt = run_small(ROOT)
        files.write(ROOT / RECEIPT, (json.dumps(receipt, indent=2) + "\n").encode())
        print(f"{RECEIPT}: written")
        return
    lines = verify_small(ROOT) if arguments.what == "small" else verify(ROOT, arguments.what)
    for line in lines:
        print(f"{line.verdict:<12}  {line.path}  {line.detail}")
    print(closing(lines))
    sys.exit(any(line.verdict == "differs" for line in lines))


def verify(root: Path, what: str) -> list[Line]:
    """Rebuild a key of `PIPELINES` and compare its outputs with the lock files in `root`."""
    pipelines = PIPELINES[what]
    committed = [locked(root, pipeline) for pipeline in pipelines]
    with copied(root) as clone:
        copy_history(root, clone)
        for pipeline in pipelines:
            reproduce(clone, pipeline)
        rebuilt = [locked(clone, pipeline) for pipeline in pipelines]
        for change in changes(committed, rebuilt):
            print(f"{'changed':<12}  {change}")
        old, new = outputs(committed), outputs(rebuilt)
        return [
            compared(path, old.get(path), new.get(path), root / path, clone / path)
            for path in dict.fromkeys([*old, *new])
        ]


def verify_small(root: Path) -> list[Line]:
    """Rebuild with the small budget and compare with the receipt.

    Raises
    ------
    InputError
        If the receipt is of other parameters: nothing could be compared with it.
    """
    receipt = files.read_json(root / RECEIPT)
    if set(receipt) != RECEIPT_KEYS:
        raise InputError(
            f"{RECEIPT}: got {', '.join(receipt) or 'nothing'}, allowed: what `make receipt` writes"
        )
    here = {"parameters": mapping(root / PARAMS), "budget": BUDGET}
    if other := json_difference({key: receipt[key] for key in here}, here, second="here"):
        raise InputError(f"{RECEIPT}: is of other parameters: {other}; `make receipt` writes anew")
    return receipt_lines(receipt, run_small(root))


def run_small(root: Path) -> dict[str, Any]:
    """Run the pipeline with the small budget; return a receipt of it.

    Returns
    -------
    dict
        `parameters` and `budget`: what was run. `histories`: the lines of each history.
        `outputs`: a SHA-256 of every other output, of each file if it is a folder; of tensors, not
        of the file that holds them.
    """
    with copied(root) as clone:
        change_params(clone / PARAMS, BUDGET)
        reproduce(clone, LAST_STAGE)
        made = sorted(outputs([locked(clone, "dvc.yaml")]))
        histories = [path for path in made if path.startswith(HISTORIES)]
        return {
            "parameters": mapping(root / PARAMS),
            "budget": BUDGET,
            "histories": {p: files.read_text(clone / p).splitlines() for p in histories},
            "outputs": {p: content_hash(clone / p) for p in made if p not in histories},
        }


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Copy the project and its data into a temporary folder, without results, its cache empty."""
    changed = git("status", "--porcelain", folder=root).splitlines()
    if changed:
        print(f"verified with {len(changed)} uncommitted changes, as here", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="normlab-verify-") as scratch:
        clone = Path(scratch)
        copy_known(root, clone)
        pipelines = [name for name in STUDIES if lock(clone, name).exists()]
        for path in outputs([locked(clone, pipeline) for pipeline in pipelines]):
            made = clone / path
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        for pipeline in pipelines:
            lock(clone, pipeline).unlink()
        git("init", "--quiet", folder=clone)
        # Not a cache that this user's configuration shares between projects.
        for project in PROJECTS:
            (clone / project / ".dvc/config.local").write_text("[cache]\n    dir = cache\n")
        (clone / ".venv").symlink_to(sys.prefix)
        place_data(root, clone)
        yield clone


def place_data(root: Path, clone: Path) -> None:
    """Copy the data files that are here to where `download` finds, and checks, them."""
    chosen = str(mapping(root / PARAMS).get("dataset"))
    dataset = datasets.known().get(chosen)
    if dataset is None:
        if (root / chosen).is_dir() and not Path(chosen).is_absolute():
            shutil.copytree(root / chosen, clone / chosen, dirs_exist_ok=True)
        return
    found = placed.find(root / "data/incoming", dataset)
    for split, names in dataset.splits.items():
        here = root / "data" / split
        found |= {name: (here / name).read_bytes() for name in names if (here / name).is_file()}
        for name in found.keys() & {*names}:
            files.write(clone / "data" / split / name, found[name])


def change_params(file: Path, changes: Mapping[str, Any]) -> None:
    """Give parameters in a file other values. It becomes JSON, which is YAML too."""
    files.write(file, json.dumps({**mapping(file), **changes}, indent=2).encode())


def reproduce(clone: Path, target: str) -> None:
    """Run `dvc repro` for real, in the project that the target is of."""
    project = next(one for one in reversed(PROJECTS) if Path(target).is_relative_to(one))
    own = str(Path(target).relative_to(project))
    # Should Ctrl-C end it, it still writes below `clone`.
    if status := dvc.run("repro", own, folder=clone / project, stdout=sys.stderr):
        raise InputError(f"dvc repro {target}: ended with status {status}, its reason is above")


def lock(root: Path, pipeline: str) -> Path:
    """Where DVC keeps the lock of a `dvc.yaml`."""
    return (root / pipeline).with_suffix(".lock")


def locked(root: Path, pipeline: str) -> dict[str, Any]:
    """Read what a lock file says of each stage, paths as from the root.

    DVC adds stages in the order in which they end; here they have that of the `dvc.yaml`.
    """
    stages, declared = (mapping(p)["stages"] for p in (lock(root, pipeline), root / pipeline))
    order = {name: place for place, name in enumerate(declared)}
    found = {}
    for name in sorted(stages, key=lambda name: (order[name.partition("@")[0]], name)):
        stage, about = stages[name], declared[name.partition("@")[0]]
        folder = root / Path(pipeline).parent / about.get("wdir", ".")
        for file in [*stage.get("deps", []), *stage.get("outs", [])]:
            # Of the folder alone: where DVC is told to link to its cache, an output is a link.
            path = folder / file["path"]
            file["path"] = str((path.parent.resolve() / path.name).relative_to(root.resolve()))
        found[name] = stage
    return found


def outputs(locks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """MD5 of every output by its path."""
    stages = [stage for one in locks for stage in one.values()]
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def changes(
    committed: Sequence[Mapping[str, Any]], rebuilt: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Name the code and the parameters that are not those of the lock: a cause of differences."""
    made = {*outputs(committed), *outputs(rebuilt)}
    made |= {str(folder) for path in made for folder in Path(path).parents}
    found: dict[str, None] = {}
    for old_lock, new_lock in zip(committed, rebuilt, strict=True):
        for name in old_lock.keys() & new_lock.keys():
            old, new = old_lock[name], new_lock[name]
            before = {dep["path"]: dep["md5"] for dep in old.get("deps", [])}
            for dep in new.get("deps", []):
                path = dep["path"]
                ours = path not in made and not path.endswith("dvc.lock")
                if ours and before.get(path) != dep["md5"]:
                    found[f"{path}  is not that of the lock"] = None
            for file, values in new.get("params", {}).items():
                known = old.get("params", {}).get(file, {})
                for key, value in values.items():
                    if key not in known or known[key] != value:
                        found[f"{file}  {key} {known.get(key)}, here {value}"] = None
    return sorted(found)


def compared(path: str, old: str | None, new: str | None, committed: Path, rebuilt: Path) -> Line:
    """Compare an output by its MD5, and by its content where that differs.

    Parameters
    ----------
    path
        What the lock calls it.
    old, new
        Its MD5 in the committed and in the rebuilt lock; None if it is not there.
    committed, rebuilt
        Where it is. What is at `committed` is looked at only if it has the MD5 `old`.
    """
    if old is None or new is None:
        return Line("differs", path, "not in the lock" if old is None else "no stage makes it")
    if old == new:
        return Line("same", path, old)
    if not committed.exists() or dvc_md5(committed) != old:
        return Line("differs", path, f"{old}, rebuilt {new}; what is here is not what the lock has")
    detail = difference(committed, rebuilt)
    return Line("differs", path, detail) if detail else Line("same picture", path, new)


def closing(lines: Sequence[Line]) -> str:
    """Sum up; name the first difference, in training if there is one, since all others follow."""
    differing = [line for line in lines if line.verdict == "differs"]
    if not differing:
        pictures = sum(line.verdict == "same picture" for line in lines)
        return f"all {len(lines)} outputs are the same" + (pictures > 0) * (
            f", {pictures} of them as pictures: other fonts or another rasterizer drew them"
        )
    first = min(differing, key=lambda line: "history" not in line.path)
    return f"{len(differing)} of {len(lines)} outputs differ, first {first.path}: {first.detail}"


def receipt_lines(receipt: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> list[Line]:
    """Compare two receipts of the same parameters."""
    lines = []
    old, new = receipt["histories"], rebuilt["histories"]
    for path in sorted({*old, *new}):
        if old.get(path) == new.get(path):
            lines.append(Line("same", path, f"{len(new[path]) - 1} epochs"))
        else:
            texts = ["\n".join(one.get(path, [])) for one in (old, new)]
            lines.append(Line("differs", path, table_difference(*texts)))
    old, new = receipt["outputs"], rebuilt["outputs"]
    for path in sorted({*old, *new}):
        ours, theirs = old.get(path), new.get(path)
        if ours == theirs:
            whole = f"{len(theirs)} files" if isinstance(theirs, dict) else theirs
            lines.append(Line("same", path, whole))
        else:
            lines.append(Line("differs", path, json_difference(ours, theirs) or ""))
    return lines


if __name__ == "__main__":
    with exit_on_input_error():
        main()
