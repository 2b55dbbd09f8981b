"""Stage `download`: the four MNIST files, the training and the test split apart."""

from pathlib import Path

from normlab import mnist, sources
from normlab.errors import reported
from stages import files

INCOMING = Path("data/incoming")
TRAIN = Path("data/train")
TEST = Path("data/test")


def main() -> None:
    """Fetch and check all four files, then write both splits."""
    fetched = sources.fetch(INCOMING)
    with files.directory(TRAIN) as train, files.directory(TEST) as test:
        for split, directory in (("train", train), ("test", test)):
            for name in mnist.SPLITS[split]:
                (directory / name).write_bytes(fetched[name])


if __name__ == "__main__":
    with reported():
        main()
