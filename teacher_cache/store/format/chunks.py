"""Encoding one array's values of a row as the bytes of a Zarr chunk, without its checksum, and decoding them."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blosc_frame import HEADER_BYTES, check_frame
from .header import CHECKSUM_BYTES
from .profiles import LARGEST_EXPONENT, ArraySpec
from .shard_file import Bytes

_FIRST_TOO_LARGE = {"<f2": 0x7C00, "<f4": (127 + LARGEST_EXPONENT) << 23}
"""Bits of the smallest positive value of each dtype that a row must not contain; NaN and infinity have larger bits."""


def encode_chunk(array: ArraySpec, values: NDArray[Any]) -> tuple[memoryview, Bytes]:
    """Encode values; returns the raw little-endian bytes and the stored bytes, which are compressed in some arrays."""
    assert values.shape == array.shape, (array.name, values.shape, array.shape)
    raw = np.ascontiguousarray(values, dtype=array.dtype).data.cast("B")
    return raw, _blosc().encode(np.frombuffer(raw, array.dtype)) if array.compressed else raw


def decode_chunk(array: ArraySpec, stored: Bytes) -> NDArray[Any]:
    """Decode a chunk to values in the shape of the array's row; a view of `stored` if the array is uncompressed.

    Raises:
        ValueError: the number of values is wrong, or some are not finite or too large for a cosine.
    """
    values = _decoded(array, stored)
    if not in_range(values):
        raise ValueError(f"has values that are not finite or beyond 2^{LARGEST_EXPONENT}")
    return values


def in_range(values: NDArray[Any]) -> bool:
    """Whether all values of an array are finite, and below 2^50 in float32; integers always are.

    Viewed as integers, NaN and infinity are larger than all other values of their sign, so two maxima are sufficient,
    which is much faster than isfinite.
    """
    first = _FIRST_TOO_LARGE.get(values.dtype.str)
    if first is None or not values.size:
        return True
    size = values.dtype.itemsize
    sign = 1 << (8 * size - 1)
    return bool(values.view(f"<i{size}").max() < first and values.view(f"<u{size}").max() < sign + first)


def chunk_lengths(array: ArraySpec) -> tuple[int, int]:
    """Minimum and maximum size in bytes of an array's chunk in its shard, including the checksum."""
    if array.compressed:
        return HEADER_BYTES + CHECKSUM_BYTES, array.nbytes + HEADER_BYTES + CHECKSUM_BYTES
    return array.nbytes + CHECKSUM_BYTES, array.nbytes + CHECKSUM_BYTES


def _decoded(array: ArraySpec, stored: Bytes) -> NDArray[Any]:
    if array.compressed:
        return _decompressed(array, stored)
    if len(stored) != array.nbytes:
        raise ValueError(f"has {len(stored)} bytes, not {array.nbytes}")
    return np.ndarray(array.shape, array.dtype, stored)


def _decompressed(array: ArraySpec, stored: Bytes) -> NDArray[Any]:
    check_frame(stored, array.nbytes)
    values = np.empty(array.shape, array.dtype)
    try:
        _blosc().decode(stored, values)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    return values


@cache
def _blosc() -> Any:
    """Zarr's `blosc` codec with the settings of the format, and one thread, since its pool does not survive a fork."""
    import numcodecs.blosc

    numcodecs.blosc.use_threads = False
    return numcodecs.blosc.Blosc(cname="zstd", clevel=7, shuffle=numcodecs.blosc.BITSHUFFLE, blocksize=0)
