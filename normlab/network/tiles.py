"""Tiles: how many sums of a convolution the processor's registers hold at a time.

Whatever is chosen here, the bits are the same: a tile decides which sums are in registers together,
never the order in which one of them is added up.
"""


def conv_tile(channels: int, row: int, registers: int) -> tuple[int, int]:
    """Choose a convolution's tile: output channels by registers of neighbouring values.

    Parameters
    ----------
    channels, row
        What tiles are to cover: output channels, and the registers that a row of pixels fills. What
        is left over at an end is covered by a smaller tile.
    registers
        Vector registers of the processor: a tile's sums, its values and one weight have to fit.
    """
    fitting = [
        (c, n)
        for c in range(1, channels + 1)
        for n in range(1, row + 1)
        if c * n + n + 1 <= registers
    ]

    def cost(tile: tuple[int, int]) -> float:
        return sum(
            count_c * count_n * cycles(c * n, c + n)
            for c, count_c in _pieces(channels, tile[0])
            for n, count_n in _pieces(row, tile[1])
        )

    return min(fitting, key=cost)


def dweight_tile(channels: int, kernel: int, registers: int) -> int:
    """Choose of how many output channels to sum the weights' gradient at a time.

    For each the sums of one row of the kernel, `kernel` of them, have to fit beside as many values.
    """
    fitting = [c for c in range(1, channels + 1) if c * kernel + kernel + 1 <= registers]

    def cost(tile: int) -> float:
        return sum(n * cycles(c * kernel, c + kernel) for c, n in _pieces(channels, tile))

    return min(fitting, key=cost)


def cycles(products: int, loads: int) -> float:
    """Estimate the cycles in which a tile adds one product to each of its sums.

    Processors start two multiply-adds and two loads a cycle, and half of the loads hide behind the
    multiply-adds; a sum takes its next product four cycles after the last one.
    """
    return max(products / 2 + loads / 4, 4)


def _pieces(length: int, step: int) -> list[tuple[int, int]]:
    """Sizes and numbers of the pieces that a length is cut into."""
    return [(step, length // step)] + ([(length % step, 1)] if length % step else [])
