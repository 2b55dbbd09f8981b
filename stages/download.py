"""Stage `download`: the four files of a data set, the training and the test split apart."""

import json
import os
from pathlib import Path

from normlab import files, params, scratch
from normlab.data import datasets, own, sources
from normlab.data.datasets import Dataset
from normlab.errors import InputError

PARAMS = Path("params.yaml")
INCOMING = Path("data/incoming")
TRAIN = Path("data/train")
TEST = Path("data/test")


def main(other: str = ".") -> None:
    """Fetch and check all four files, then write both splits, each with its description.

    Parameters and folders of one's own are those of `other`, the folder of another DVC project
    or of this one; what it has is taken before it is fetched.
    """
    project = Path(other)
    for folder in (TRAIN, TEST):
        scratch.clear(folder)
    chosen = params.load(project / PARAMS).dataset
    workspace = Path(os.path.relpath(workspace_of(Path.cwd())))
    if dataset := datasets.known().get(chosen):
        roots = dict.fromkeys([Path(), workspace, workspace / project])
        folders = [root / split for root in roots for split in (TRAIN, TEST)]
        in_place = [folder for folder in folders if may_hold(folder, dataset)]
        fetched = sources.fetch(dataset, workspace / project / INCOMING, in_place)
    else:
        dataset, fetched = own.read(workspace / project / chosen)
    with files.directory(TRAIN) as train, files.directory(TEST) as test:
        for split, directory in (("train", train), ("test", test)):
            for name in dataset.splits[split]:
                (directory / name).write_bytes(fetched[name])
            told = json.dumps(datasets.description(dataset, split), indent=2)
            (directory / datasets.DESCRIPTION).write_text(f"{told}\n")


def may_hold(folder: Path, dataset: Dataset) -> bool:
    """Whether files in a folder may be of a data set: it does not say that they are another's."""
    try:
        return datasets.read(folder) == dataset
    except InputError:
        return True


def workspace_of(folder: Path) -> Path:
    """Return the project's folder, also for an experiment in a folder of its own below it.

    Git keeps no data, so none of what a person has placed in the project is there.
    """
    return Path(str(folder).partition("/.dvc/tmp/")[0])
