"""How series look: colours, markers and dashes, by position, for figures and charts alike.

Colours are Okabe and Ito's ("Color Universal Design", 2008), chosen to differ for people with the
common colour-vision deficiencies. Every series has its own marker and dashes too, so that colour is
never the only channel.
"""

from collections.abc import Iterable
from typing import NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# The same on the page, except where one stands less than 3:1 off its background.
LIGHT = (*COLOURS[:3], "#B3578F", "#2C86BC", "#A87400")
DARK = ("#3B93D1", "#E8711A", "#1FAE85", *COLOURS[3:6])
# Percentages of a series' own colour in the steps of a ramp, which orders; the rest is the text's.
RAMP = (100, 85, 70, 55, 40, 25)

# A matplotlib marker, and the same shape in a square from -1 to 1.
MARKERS = {
    "o": "M-.9,0A.9,.9,0,1,1,.9,0A.9,.9,0,1,1,-.9,0Z",
    "s": "M-.8,-.8H.8V.8H-.8Z",
    "^": "M0,-1L1,.8H-1Z",
    "D": "M0,-1.1L.9,0L0,1.1L-.9,0Z",
    "v": "M0,1L1,-.8H-1Z",
    "P": "M-.33,-1H.33V-.33H1V.33H.33V1H-.33V.33H-1V-.33H-.33Z",
}
LINES = ("-", "--", "-.", ":")
DASHES = ([1, 0], [6, 3], [8, 3, 2, 3], [2, 2], [10, 3], [4, 2, 1, 2])


class Series(NamedTuple):
    """What tells one series of the page's charts from the others: its name and its look."""

    label: str
    colour: str
    """A CSS variable, which the page sets for light and dark."""
    position: int

    @property
    def marker(self) -> str:
        """The shape of its points."""
        return list(MARKERS.values())[self.position % len(MARKERS)]

    @property
    def dash(self) -> list[int]:
        """Lengths of its dashes and gaps."""
        return DASHES[self.position % len(DASHES)]


def named(labels: Iterable[str], first: int = 0) -> list[Series]:
    """Make a series of each label, the colours in order from the `first`."""
    known = enumerate(dict.fromkeys(labels), start=first)
    return [Series(label, f"var(--series-{i % len(LIGHT)})", i) for i, label in known]


def ordered(labels: Iterable[str], position: int) -> list[Series]:
    """Make a series of each label, in order from the colour of a position to the text's."""
    known = list(dict.fromkeys(labels))
    step = (len(RAMP) - 1) / max(1, len(known) - 1)
    ramp = [f"var(--series-{position % len(LIGHT)}-{share})" for share in RAMP]
    return [Series(label, ramp[round(i * step)], i) for i, label in enumerate(known)]
