"""Stage `download`: the four MNIST files, the training and the test split apart."""

import os
from pathlib import Path

from normlab import files
from normlab.data import datasets, sources

INCOMING = Path("data/incoming")
TRAIN = Path("data/train")
TEST = Path("data/test")


def main(project: str = ".") -> None:
    """Fetch and check all four files, then write both splits.

    What `project` has, a folder of another DVC project, is taken before it is fetched.
    """
    dataset = datasets.MNIST
    workspace = Path(os.path.relpath(workspace_of(Path.cwd())))
    roots = dict.fromkeys([Path(), workspace, workspace / project])
    in_place = [root / split for root in roots for split in (TRAIN, TEST)]
    fetched = sources.fetch(dataset, workspace / project / INCOMING, in_place)
    with files.directory(TRAIN) as train, files.directory(TEST) as test:
        for split, directory in (("train", train), ("test", test)):
            for name in dataset.splits[split]:
                (directory / name).write_bytes(fetched[name])


def workspace_of(folder: Path) -> Path:
    """Return the project's folder, also for an experiment in a folder of its own below it.

    Git keeps no data, so none of what a person has placed in the project is there.
    """
    return Path(str(folder).partition("/.dvc/tmp/")[0])
