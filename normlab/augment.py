"""Random affine maps of whole batches, as index arithmetic.

A pixel of the augmented image takes the value of the nearest pixel of the original, or the
background where there is none. The arithmetic uses only what NumPy arrays and torch tensors share,
so training runs it on its device and a figure can show the same maps without torch.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 28
PADDED = SIDE + 2
CENTRE = (SIDE - 1) / 2


class Ranges(NamedTuple):
    """What the maps are drawn from, uniformly."""

    rotation: float
    """Degrees, to either side."""
    translation: float
    """Fraction of the image's side, in every direction; rounded to whole pixels."""
    scale: tuple[float, float]
    """Smallest and largest factor."""
    shear: float
    """Degrees along x, to either side."""


def draw(rng: np.random.Generator, count: int, ranges: Ranges) -> NDArray[np.float32]:
    """Draw `count` affine maps, distributed as torchvision's `RandomAffine`.

    Returns
    -------
    (count, 2, 3) float32, as `inverse_maps`.
    """
    pixels = ranges.translation * SIDE
    return inverse_maps(
        angle=rng.uniform(-ranges.rotation, ranges.rotation, count),
        shift=np.round(rng.uniform(-pixels, pixels, (count, 2))),
        scale=rng.uniform(*ranges.scale, count),
        shear=rng.uniform(-ranges.shear, ranges.shear, count),
    )


def inverse_maps(
    angle: NDArray[np.float64],
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    shear: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Matrices that take output positions to input positions, relative to the image's centre.

    The forward map is torchvision's: shift ∘ rotation ∘ shear ∘ scale.

    Parameters
    ----------
    angle, scale, shear
        (n,) each: degrees clockwise, factor, degrees along x.
    shift
        (n, 2): pixels to the right and downwards.

    Returns
    -------
    (n, 2, 3) float32, rows x and y.
    """
    rotation, slant = np.radians(angle), np.tan(np.radians(shear))
    cos, sin = np.cos(rotation), np.sin(rotation)
    linear = np.array([[cos - sin * slant, cos * slant + sin], [-sin, cos]]) / scale
    offset = -np.einsum("ijn,nj->in", linear, shift)
    return np.concatenate([linear, offset[:, None]], axis=1).transpose(2, 0, 1).astype(np.float32)


def grid() -> NDArray[np.float32]:
    """Homogeneous positions of the pixels of an image from its centre: (3, 784), rows x, y, 1."""
    y, x = np.mgrid[:SIDE, :SIDE].reshape(2, -1) - CENTRE
    return np.stack([x, y, np.ones_like(x)]).astype(np.float32)


def pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a border of background around images: (n, 28, 28) to (n, 900), both uint8."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(len(images), PADDED**2)


def source_pixels(maps: Any, positions: Any) -> Any:
    """For every pixel of the augmented images, the index of its source in the padded original.

    Positions outside the image land on the border that `pad` adds, so they read background.

    Parameters
    ----------
    maps
        (n, 2, 3) float32 from `draw`, a NumPy array or a torch tensor.
    positions
        (3, 784) float32 from `grid`, of the same kind.

    Returns
    -------
    (n, 784) float32 of the same kind, whole numbers in [0, 900).
    """
    nearest = (maps @ positions + CENTRE).round().clip(-1, SIDE)
    return nearest[:, 1] * PADDED + nearest[:, 0] + (PADDED + 1)
