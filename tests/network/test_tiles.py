from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.network import tiles


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 120), st.sampled_from([16, 32]))
def test_tiles_fit_the_registers_and_the_text_of_the_engine(
    channels: int, row: int, registers: int
) -> None:
    c, n = tiles.conv_tile(channels, row, registers)
    assert 1 <= c <= channels
    assert 1 <= n <= row
    assert c * n + n + 1 <= registers <= 32
    for kernel in (1, 3):
        assert tiles.dweight_tile(channels, kernel, registers) * kernel < registers
