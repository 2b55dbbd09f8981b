"""IDX files of unsigned bytes: the format of MNIST and of the data sets made like it.

From the MNIST page: two zero bytes, the type (0x08 for unsigned byte), the number of dimensions,
each dimension as a big-endian uint32, then the values in C order.
"""

import math

import numpy as np
from numpy.typing import NDArray

from normlab.errors import InputError


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an IDX file of unsigned bytes.

    Parameters
    ----------
    data : bytes
        The whole uncompressed file.

    Returns
    -------
    numpy.ndarray
        uint8, one dimension (labels) or three (images), writable.

    Raises
    ------
    InputError
        If the type or the number of dimensions is another, or the length does not fit them.
    """
    if data[:3] != b"\0\0\x08" or data[3:4] not in (b"\x01", b"\x03"):
        raise InputError(f"IDX: got magic number {data[:4].hex()}, allowed: 00000801 or 00000803")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise InputError(f"IDX: got {len(data)} bytes, expected a header of {header}")
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    if len(data) != header + math.prod(shape):
        raise InputError(
            f"IDX: got {len(data)} bytes, expected {header + math.prod(shape)} for shape {shape}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def encode(array: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 array of one or three dimensions as an IDX file.

    Raises
    ------
    ValueError
        If the array has another type or number of dimensions.
    """
    if array.dtype != np.uint8 or array.ndim not in (1, 3):
        raise ValueError(f"got {array.dtype} of {array.ndim} dimensions, allowed: uint8 of 1 or 3")
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
