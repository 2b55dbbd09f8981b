"""Random affine maps of whole batches, as index arithmetic.

A pixel of the augmented image takes the value of the nearest pixel of the original, or the
background where there is none. The arithmetic uses only what NumPy arrays and torch tensors share,
so training runs it on its device and a figure can show the same maps without torch.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 28
"""Of the images, in pixels, where no other is given."""
FARTHEST = 2.0**20
"""No element of a map is larger, and no scale below its inverse: all comes from outside then."""


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


def draw(
    rng: np.random.Generator, count: int, ranges: Ranges, side: int = SIDE
) -> NDArray[np.float32]:
    """Draw `count` affine maps of images, distributed as torchvision's `RandomAffine`.

    Returns
    -------
    (count, 2, 3) float32, as `inverse_maps`.
    """
    # Not rng.uniform, whose multiply-add some processors fuse.
    pixels = ranges.translation * side
    low, high = ranges.scale
    angle = ranges.rotation * (2 * rng.random(count) - 1)
    shift = np.rint(pixels * (2 * rng.random((count, 2)) - 1))
    scale = low + (high - low) * rng.random(count)
    shear = ranges.shear * (2 * rng.random(count) - 1)
    return inverse_maps(angle, shift, scale, shear)


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
    sin, cos = sin_cos(angle)
    slant = np.divide(*sin_cos(shear))
    scale = np.maximum(scale, 1 / FARTHEST)
    rows = [
        [(cos - sin * slant) / scale, (cos * slant + sin) / scale],
        [-sin / scale, cos / scale],
    ]
    maps = np.empty((len(angle), 2, 3))
    for y, (to_x, to_y) in enumerate(rows):
        maps[:, y, 0], maps[:, y, 1] = to_x, to_y
        maps[:, y, 2] = -(to_x * shift[:, 0] + to_y * shift[:, 1])
    return maps.clip(-FARTHEST, FARTHEST).astype(np.float32)


def sin_cos(degrees: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sine and cosine of angles in degrees, within 2.3e-16: the same bits on every machine.

    NumPy's and the C library's own depend on processor and version. What is left after whole
    quarter turns, at most an eighth, goes into Taylor's series: the four basic operations alone.

    Parameters
    ----------
    degrees
        float64, any shape; at most 360 to either side.
    """
    x = np.asarray(degrees, np.float64)
    quarters = np.rint(x / 90)
    r = (x - 90 * quarters) * (math.pi / 180)
    square = r * r
    sin, cos = np.ones_like(x), np.ones_like(x)
    for n in range(17, 1, -2):
        sin = 1 - square / ((n - 1) * n) * sin
        cos = 1 - square / ((n - 2) * (n - 1)) * cos
    sin = r * sin
    turn = quarters.astype(np.int64) % 4
    return (
        np.choose(turn, [sin, cos, -sin, -cos]),
        np.choose(turn, [cos, -sin, -cos, sin]),
    )


def grid(side: int = SIDE) -> NDArray[np.float32]:
    """Homogeneous positions of the pixels of an image from its centre: (3, side²), rows x, y, 1."""
    y, x = np.mgrid[:side, :side].reshape(2, -1) - centre(side)
    return np.stack([x, y, np.ones_like(x)]).astype(np.float32)


def centre(side: int) -> float:
    """Where the middle of an image is, from its first pixel's, along either axis."""
    return (side - 1) / 2


def pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a border of background around images: (n, s, s) to (n, (s + 2)²), both uint8."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(len(images), -1)


def source_pixels(maps: Any, positions: Any) -> Any:
    """For every pixel of the augmented images, the index of its source in the padded original.

    Positions outside the image land on the border that `pad` adds, so they read background.

    Parameters
    ----------
    maps
        (n, 2, 3) float32 from `draw`, a NumPy array or a torch tensor.
    positions
        (3, side²) float32 from `grid`, of the same kind.

    Returns
    -------
    (n, side²) float32 of the same kind, whole numbers in [0, (side + 2)²).
    """
    x, y = positions[0], positions[1]
    side = math.isqrt(len(x))
    middle, padded = centre(side), side + 2
    # No matrix product, whose order of summation varies.
    found = [maps[:, i, :1] * x + (maps[:, i, 1:2] * y + (maps[:, i, 2:] + middle)) for i in (0, 1)]
    column, row = (position.clip(-1, side).round() for position in found)
    return row * padded + column + (padded + 1)
