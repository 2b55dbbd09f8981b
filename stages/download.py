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
DATA = Path("data")


def main(other: str = ".", known: str = "") -> None:
    """Fetch and check all four files, then write both splits, each with its description.

    Folders of one's own are those of `other`, the folder of another DVC project or of this one;
    what it has is taken before it is fetched. A `known` data set has a folder of its name; else it
    is the one that the parameters name.
    """
    project, own_folder = Path(other), DATA / known
    splits = [own_folder / split for split in datasets.SPLITS]
    own_folder.mkdir(parents=True, exist_ok=True)
    for folder in splits:
        scratch.clear(folder)
    chosen = known or params.load(project / PARAMS).dataset
    workspace = Path(os.path.relpath(workspace_of(Path.cwd())))
    if dataset := datasets.known().get(chosen):
        roots = dict.fromkeys([own_folder, workspace / own_folder, workspace / project / DATA])
        folders = [root / split for root in roots for split in datasets.SPLITS]
        in_place = [folder for folder in folders if may_hold(folder, dataset)]
        fetched = sources.fetch(dataset, workspace / project / INCOMING, in_place)
    else:
        dataset, fetched = own.read(workspace / project / chosen)
    with files.directory(splits[0]) as train, files.directory(splits[1]) as test:
        for split, directory in zip(datasets.SPLITS, (train, test), strict=True):
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
