"""The network's shapes, without torch: whoever counts or draws them need not import it."""

from typing import NamedTuple


class Architecture(NamedTuple):
    """Shapes of a network, of its images, convolutions and pools, and what pixels are to it."""

    side: int
    """Of the square images, in pixels."""
    classes: int
    convolutions: tuple[tuple[int, int, int, int], ...]
    """Channels in, channels out, kernel, padding."""
    pools: tuple[int, ...]
    """After which convolutions, counted from 1, a max pool of 2 by 2 comes."""
    mean: float = 0.1307
    std: float = 0.3081
    """Of the pixels of its training images, as fractions of 255: it sees them less the one, divided
    by the other. These are MNIST's."""

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

    def with_padding(self, number: int, padding: int) -> "Architecture":
        """Give it with another padding of the convolution of this number, counted from 1."""
        changed = list(self.convolutions)
        changed[number - 1] = (*changed[number - 1][:3], padding)
        return self._replace(convolutions=tuple(changed))


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
