"""The engine's source for a network: its shapes as constants, tiles chosen for the processor."""

from collections.abc import Mapping
from pathlib import Path

from normlab.network.compiled import Processor
from normlab.network.plans import Layer, Plan

# Text, so that it travels to the workers of a scheduler elsewhere with our other code.
SOURCE = Path(__file__).with_name("engine.c").read_text()
LANES = 16


def source(found: Plan, kind: Processor, members: Mapping[str, str]) -> str:
    """Write the engine's source for networks of this shape, its tiles for this processor.

    Normalizations are not in it: they are told to it with each job, whose `members` these are.
    """
    job = "".join(f"  {made}{name};\n" for name, made in members.items())
    shapes = ", ".join(f"{{{_shape(layer, kind)}}}" for layer in found.layers)
    each = " ".join(f"DO({i})" for i in range(len(found.layers)))
    return (
        "#include <stddef.h>\n#include <stdint.h>\n\n"
        f"#define SIDE {found.side}\n#define CLASSES {found.classes}\n"
        f"#define LAYERS {len(found.layers)}\n#define SHAPES {shapes}\n#define EACH(DO) {each}\n\n"
        f"typedef struct {{\n{job}}} Job;\n\n{SOURCE}"
    )


def _shape(layer: Layer, kind: Processor) -> str:
    parts = LANES // kind.width
    before = layer.side + layer.kernel - 1 - 2 * layer.pad
    tiles = (
        *tile(layer.outputs, layer.side * parts, kind.registers),
        *tile(layer.inputs, before * parts, kind.registers),
        weights_tile(layer.outputs, layer.kernel, kind.registers),
    )
    numbers = (*layer[:6], *tiles)
    return ", ".join(str(int(number)) for number in numbers)


def tile(channels: int, values: int, registers: int) -> tuple[int, int]:
    """Choose a convolution's tile: how many channels by how many registers of neighbouring values.

    Parameters
    ----------
    channels, values
        What is to be covered: output channels, and registers that a row of pixels fills. What a
        tile leaves over at an end is covered by a smaller one.
    registers
        Vector registers there are: a tile's sums, its values and one weight have to fit.
    """
    fitting = [
        (c, n)
        for c in range(1, channels + 1)
        for n in range(1, values + 1)
        if c * n + n + 1 <= registers
    ]

    def cost(choice: tuple[int, int]) -> float:
        return sum(
            count_c * count_n * cycles(c * n, c + n)
            for c, count_c in _cover(channels, choice[0])
            for n, count_n in _cover(values, choice[1])
        )

    return min(fitting, key=cost)


def weights_tile(channels: int, kernel: int, registers: int) -> int:
    """Choose how many channels of the weights' gradient to sum at a time, by a kernel's row."""
    fitting = [c for c in range(1, channels + 1) if c * kernel + kernel + 1 <= registers]

    def cost(choice: int) -> float:
        return sum(n * cycles(c * kernel, c + kernel) for c, n in _cover(channels, choice))

    return min(fitting, key=cost)


def cycles(products: int, loads: int) -> float:
    """Estimate how long a tile takes for one input value and weight: the rule behind its choice.

    Processors start two multiply-adds and two loads a cycle, and loads hide half behind them; a sum
    is ready for its next addend after four cycles.
    """
    return max(products / 2 + loads / 4, 4)


def _cover(length: int, step: int) -> list[tuple[int, int]]:
    """Sizes and numbers of the pieces that a length is cut into."""
    return [(step, length // step)] + ([(length % step, 1)] if length % step else [])
