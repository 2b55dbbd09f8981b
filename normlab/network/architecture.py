"""The network's shapes, without torch: whoever counts or draws them need not import it."""

from typing import NamedTuple


class Architecture(NamedTuple):
    """Shapes of a network: of its images, convolutions and pools."""

    side: int
    """Of the square images, in pixels."""
    classes: int
    convolutions: tuple[tuple[int, int, int, int], ...]
    """Channels in, channels out, kernel, padding."""
    pools: tuple[int, ...]
    """After which convolutions, counted from 1, a max pool of 2 by 2 comes."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Channels and side, in pixels, of what each convolution puts out."""
        found, side = [], self.side
        for number, (_, channels, kernel, padding) in enumerate(self.convolutions, start=1):
            side += 2 * padding - kernel + 1
            found.append((channels, side))
            if number in self.pools:
                side //= 2
        return tuple(found)


REFERENCE = Architecture(
    side=28,
    classes=10,
    convolutions=(
        (1, 12, 3, 0),
        (12, 16, 3, 0),
        (16, 6, 1, 0),
        (6, 12, 3, 0),
        (12, 14, 3, 0),
        (14, 14, 3, 0),
        (14, 14, 3, 1),
    ),
    pools=(3,),
)


def largest_divisor(number: int, limit: int) -> int:
    """Largest divisor of `number` that is at most `limit` (both at least 1)."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)
