"""What each normalization averages over in this network, drawn to scale."""

from collections.abc import Callable, Mapping
from typing import Any

from normlab.network.architecture import REFERENCE, Architecture, largest_divisor

# Pixels of the boxes: for a channel, for a pixel of the side where images have 28 and less where
# they have more, for an image of the batch.
CHANNEL, SIDE, IMAGE = 4.0, 2.3, (0.22, 0.13)


def normalized(
    gn_groups: int, batch: int, architecture: Architecture = REFERENCE
) -> list[dict[str, Any]]:
    """Work out what each normalization averages over, in every layer, and draw it to scale.

    Parameters
    ----------
    gn_groups
        At most so many groups.
    batch
        Images of a batch.
    architecture
        The network's.

    Returns
    -------
    A mapping for each normalization: name, axes and boxes; of each box the images, channels and
    side that share a mean and variance, their number of values, and the lines that draw it.
    """
    kinds: dict[str, tuple[str, Callable[[int], tuple[int, int]]]] = {
        "Batch norm": ("the batch and space", lambda _: (batch, 1)),
        "Group norm": (
            f"space and a group of channels ({gn_groups} groups at most)",
            lambda channels: (1, channels // largest_divisor(channels, gn_groups)),
        ),
        "Layer norm": ("space and all channels", lambda channels: (1, channels)),
        "Instance norm": ("space alone", lambda _: (1, 1)),
    }
    pixel = SIDE * min(1, REFERENCE.side / architecture.side)
    return [
        {
            "name": name,
            "axes": axes,
            "boxes": [
                box(batch, channels, side, *shared(channels), pixel)
                for channels, side in architecture.shapes
            ],
        }
        for name, (axes, shared) in kinds.items()
    ]


def box(
    batch: int, channels: int, side: int, own_images: int, own_channels: int, pixel: float
) -> dict[str, Any]:
    """Draw a layer's output as a box, channels down, side across, batch into the depth.

    Images and channels that share a mean and variance are the front and the top of it; `pixel` is
    the width of one.
    """
    width, height = pixel * side, CHANNEL * channels
    top = IMAGE[1] * batch

    def point(across: float, down: float, deep: float) -> str:
        return f"{across + IMAGE[0] * deep:.1f},{top + down - IMAGE[1] * deep:.1f}"

    def faces(down: float, deep: float) -> dict[str, str]:
        corners: dict[str, list[tuple[float, float, float]]] = {
            "front": [(0, 0, 0), (width, 0, 0), (width, down, 0), (0, down, 0)],
            "top": [(0, 0, 0), (width, 0, 0), (width, 0, deep), (0, 0, deep)],
            "right": [(width, 0, 0), (width, down, 0), (width, down, deep), (width, 0, deep)],
        }
        return {
            name: f"M{'L'.join(point(*corner) for corner in face)}Z"
            for name, face in corners.items()
        }

    cuts = [CHANNEL * c for c in range(own_channels, channels, own_channels)]
    return {
        "width": f"{width + IMAGE[0] * batch:.1f}",
        "height": f"{height + top:.1f}",
        "outline": " ".join(faces(height, batch).values()),
        "cuts": " ".join(f"M{point(0, cut, 0)}L{point(width, cut, 0)}" for cut in cuts),
        "shared": faces(CHANNEL * own_channels, own_images),
        "images": own_images,
        "channels": own_channels,
        "side": side,
        "count": own_images * own_channels * side**2,
    }


def group_counts(studies: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    """Say how many groups each layer has in the arms of the study of groups, by their labels."""
    arms = studies.get("groups", {"arms": {}})["arms"].values()
    channels = [outputs for _, outputs, *_ in REFERENCE.convolutions]
    found = []
    for arm in arms:
        most = arm["gn_groups"]
        each = most if isinstance(most, list) else [most] * len(channels)
        found.append((arm["label"], list(map(largest_divisor, channels, each))))
    return found
