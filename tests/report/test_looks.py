"""Series look different to everybody."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from normlab.report import looks


def lab(colour: str, deficiency: Any) -> Any:
    """CIELAB coordinates of an sRGB colour (D65) as seen with a colour-vision deficiency."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    xyz = to_xyz @ np.clip(deficiency @ linear, 0, 1) / [0.9505, 1, 1.0888]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    "deficiency",
    [
        np.eye(3),
        # Machado, Oliveira & Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia.
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    ],
    ids=["none", "protanopia", "deuteranopia", "tritanopia"],
)
def test_colours_differ_for_every_common_vision(deficiency: Any) -> None:
    seen = [lab(colour, np.array(deficiency)) for colour in looks.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


def test_every_label_gets_one_look_in_order() -> None:
    series = looks.named(["a", "b", "a", "c"], first=4)
    assert [one.label for one in series] == ["a", "b", "c"]
    assert [one.colour for one in series] == [f"var(--series-{i})" for i in (4, 5, 0)]
    assert len({one.marker for one in series}) == len({tuple(one.dash) for one in series}) == 3


@pytest.mark.parametrize("count", [1, 2, 6, 9])
def test_an_order_goes_from_a_colour_to_that_of_text(count: int) -> None:
    series = looks.ordered(map(str, range(count)), position=1)
    shares = [int(one.colour.removesuffix(")").rsplit("-", 1)[1]) for one in series]
    assert all(one.colour.startswith("var(--series-1-") for one in series)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 100
    assert set(shares) <= set(looks.RAMP)
    assert count == 1 or shares[-1] == looks.RAMP[-1]
