"""Stage `download`: the four MNIST files, the training and the test split apart."""

from pathlib import Path

from normlab import files
from normlab.data import datasets, sources

INCOMING = Path("data/incoming")
TRAIN = Path("data/train")
TEST = Path("data/test")


def main() -> None:
    """Fetch and check all four files, then write both splits."""
    fetched = sources.fetch(INCOMING)
    with files.directory(TRAIN) as train, files.directory(TEST) as test:
        for split, directory in (("train", train), ("test", test)):
            for name in datasets.MNIST.splits[split]:
                (directory / name).write_bytes(fetched[name])
