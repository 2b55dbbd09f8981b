"""A data set of real letters: those of the fonts that matplotlib ships, as notMNIST is made."""

import gzip
import hashlib
from pathlib import Path
from string import ascii_uppercase

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import get_font
from numpy.typing import NDArray

from normlab.data import idx
from normlab.data.datasets import SPLITS

SIDE = 24
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmr10")
SIZES = (15, 17, 19)


def write(folder: Path) -> dict[str, bytes]:
    """Write the four files of 26 classes, those of images gzipped; every third image tests.

    Returns their contents by name, unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = draw()
    test = np.arange(len(labels)) // len(ascii_uppercase) % 3 == 2
    contents = {}
    for split, chosen in (("train", ~test), ("test", test)):
        for name, array in zip(SPLITS[split], (images[chosen], labels[chosen]), strict=True):
            contents[name] = idx.encode(array)
            if array.ndim == 3:
                packed = gzip.compress(contents[name], mtime=0)
                (folder / f"{name}.gz").write_bytes(packed)
            else:
                (folder / name).write_bytes(contents[name])
    return contents


def draw() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw every letter in every font and size, light on dark, in the middle of its image."""
    images = []
    for font in FONTS:
        for size in SIZES:
            drawn_with = get_font(f"{mpl.get_data_path()}/fonts/ttf/{font}.ttf")
            drawn_with.set_size(size, 72)
            for letter in ascii_uppercase:
                drawn_with.set_text(letter)
                drawn_with.draw_glyphs_to_bitmap()
                drawn = np.asarray(drawn_with.get_image())
                top, left = ((SIDE - length) // 2 for length in drawn.shape)
                image = np.zeros((SIDE, SIDE), np.uint8)
                image[top : top + len(drawn), left : left + len(drawn[0])] = drawn
                images.append(image)
    labels = np.tile(np.arange(len(ascii_uppercase), dtype=np.uint8), len(FONTS) * len(SIZES))
    return np.stack(images), labels


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's files by name."""
    paths = [path for path in folder.iterdir() if "ubyte" in path.name]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
