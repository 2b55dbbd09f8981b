"""Share what has been run by DVC's remote: all that the cache knows, not the present results alone.

    python -m tools.share push    # dvc push --run-cache, and what its records name
    python -m tools.share pull    # dvc pull --run-cache, and what its records name

DVC's run cache has a record of every run: what was read, and the hashes of what was written. `dvc
push --run-cache` sends all records, but the outputs of the present run alone; who changes a
parameter to what somebody has tried would train again. What is pulled is used only if it is what
its name says: DVC checks files where the remote has `verify = true`, and this what DVC takes as it
comes, records and the lists of folders' files.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils import dict_sha256
from dvc.utils.serialize import load_yaml
from dvc_data.hashfile.db import get_index
from dvc_data.hashfile.hash_info import HashInfo

from normlab import files
from normlab.errors import InputError, exit_on_input_error
from tools import dvc
from tools.git import PROJECTS

NOT_HASHED = ["size", "nfiles"]


def main() -> None:
    """Push or pull the pipeline and, where they have a remote, the studies."""
    parser = argparse.ArgumentParser(prog="tools.share", description=__doc__.partition("\n")[0])
    parser.add_argument("direction", choices=["push", "pull"])
    share = {"push": push, "pull": pull}[parser.parse_args().direction]
    pipeline, studies = map(Path, PROJECTS)
    if not has_remote(pipeline):
        raise InputError("no remote, allowed: what `dvc remote add --default NAME URL` sets")
    done = [share(pipeline)]
    if has_remote(studies):
        done.append(share(studies))
    else:
        print("studies: no remote, left out")
    sys.exit(not all(done))


def has_remote(folder: Path) -> bool:
    """Whether DVC's project in `folder` has a default remote, which then must check what it gives.

    Raises
    ------
    InputError
        If that remote would take a file for whatever its name says.
    """
    with Repo(str(folder)) as repo:
        name = repo.config["core"].get("remote")
        if name and not repo.config["remote"].get(name, {}).get("verify"):
            raise InputError(
                f"{folder}: remote {name}: got verify = false, allowed: true "
                f"(dvc remote modify {name} verify true)"
            )
    return bool(name)


def push(folder: Path) -> bool:
    """Send all records, and the outputs of each whose outputs are all in the cache."""
    # What the remote has is asked, since what DVC remembers of it may have been removed there.
    with Repo(str(folder)) as repo:
        remote = repo.cloud.get_remote_odb()
        with closing(get_index(remote)) as index:
            index.clear()
        if remote.fs.protocol == "local":
            drop_cut_short(Path(repo.cache.local.path), Path(remote.path))
    if dvc.run("push", "--run-cache", folder=folder):
        return False
    with Repo(str(folder)) as repo:
        cache = Path(repo.cache.local.path)
        hashes = [names for names in outputs(repo) if is_whole(cache, names)]
        return transfer(
            repo.cloud.push, {name for names in hashes for name in with_files(cache, names)}
        )


def pull(folder: Path) -> bool:
    """Fetch all records and outputs, drop what is damaged, check out what this commit names."""
    fetched = dvc.run("fetch", "--run-cache", folder=folder) == 0
    with Repo(str(folder)) as repo:
        cache = Path(repo.cache.local.path)
        drop_damaged_records(Path(repo.stage_cache.cache_dir))
        runs = outputs(repo)
        drop_damaged_lists(cache)
        remote = repo.cloud.get_remote_odb()
        for name in {name for run in runs for name in run if name.endswith(".dir")}:
            if not place(cache, name).exists():
                fetch_list(remote, cache, name)
        names = {name for run in runs for name in with_files(cache, run)}
        fetched &= transfer(repo.cloud.pull, {name for name in names if not name.endswith(".dir")})
        partial = [run for run in runs if not is_whole(cache, run)]
        # A folder that has gone looks to DVC like one that is empty.
        if not (there := exists(remote)):
            print(f"{folder}: remote: {remote.path} is not there", file=sys.stderr)
    if partial:
        print(
            f"{folder}: {len(partial)} of {len(runs)} runs are not whole there, and would run again"
        )
    return dvc.run("checkout", folder=folder) == 0 and fetched and there


def exists(remote: Any) -> bool:
    """Whether there is anything where the remote keeps files.

    Raises
    ------
    InputError
        If the remote cannot be reached.
    """
    with reached():
        return bool(remote.fs.exists(remote.path))


def fetch_list(remote: Any, cache: Path, name: str) -> None:
    """Fetch the list of a folder's files if it is what its name says: DVC stops where one is not.

    Raises
    ------
    InputError
        If the remote cannot be reached.
    """
    with reached():
        try:
            content = remote.fs.cat_file(remote.oid_to_path(name))
        except FileNotFoundError:
            return
    if list_name(content) == name:
        files.write(place(cache, name), content)


def transfer(send: Any, hashes: set[str]) -> bool:
    """Tell whether all that was there to be sent has arrived; DVC names what has not.

    Raises
    ------
    InputError
        If the remote cannot be reached.
    """
    with reached():
        return not send({HashInfo("md5", name) for name in hashes}).failed


@contextmanager
def reached() -> Iterator[None]:
    """Say in one line what a remote's library says where it cannot be reached.

    Raises
    ------
    InputError
        In place of any other error.
    """
    try:
        yield
    except Exception as error:  # each kind of remote has errors of its own
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"remote: {line}") from error


def outputs(repo: Repo) -> list[list[str]]:
    """Read the hashes of each recorded run's outputs."""
    records = Path(repo.stage_cache.cache_dir).glob("*/*/*")
    read = (load_yaml(record) for record in sorted(records))
    return [[out["md5"] for out in record["outs"]] for record in read]


def place(cache: Path, name: str) -> Path:
    """Where the cache has a file."""
    return cache / name[:2] / name[2:]


def with_files(cache: Path, names: Iterable[str]) -> Iterator[str]:
    """Add the hashes of the files in each folder whose list the cache has."""
    for name in names:
        yield name
        if name.endswith(".dir") and place(cache, name).exists():
            yield from (entry["md5"] for entry in json.loads(place(cache, name).read_bytes()))


def is_whole(cache: Path, names: Iterable[str]) -> bool:
    """Whether the cache has all of a run's outputs."""
    return all(place(cache, name).exists() for name in with_files(cache, names))


def drop_cut_short(cache: Path, remote: Path) -> None:
    """Remove from a remote folder what a killed push has begun: DVC takes it for sent."""
    for path in cache.glob("??/*"):
        sent = remote / path.relative_to(cache)
        if sent.exists() and sent.stat().st_size != path.stat().st_size:
            drop(sent)


def drop_damaged_records(runs: Path) -> None:
    """Remove each record that is not what its name says: the hash of all it holds."""
    for path in runs.glob("*/*/*"):
        try:
            record = load_yaml(path)
            paths = {**record, "outs": [out["path"] for out in record["outs"]]}
            names = [dict_sha256(content, exclude=NOT_HASHED) for content in (paths, record)]
        except (AttributeError, KeyError, TypeError, DvcException):
            names = []
        if names != [path.parent.name, path.name]:
            drop(path)
    # DVC fails with a traceback where it finds a folder without a record.
    for folder in runs.glob("*/*"):
        if not any(folder.iterdir()):
            folder.rmdir()


def drop_damaged_lists(cache: Path) -> None:
    """Remove each list of a folder's files that is not what its name says."""
    for path in cache.glob("??/*.dir"):
        if list_name(path.read_bytes()) != path.parent.name + path.name:
            drop(path)


def list_name(content: bytes) -> str:
    """Return the name of a list that holds this: its hash."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def drop(path: Path) -> None:
    """Remove a damaged file of the cache, and say so."""
    path.unlink()
    print(f"{path}: damaged, removed", file=sys.stderr)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
