"""One array's part of a row as the bytes of a Zarr chunk, before its checksum; and back."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .profiles import ArraySpec
from .shards import Bytes


def encode_chunk(array: ArraySpec, values: NDArray[Any]) -> tuple[memoryview, Bytes]:
    """The raw little-endian values, and what is stored of them (compressed where the array is)."""
    assert values.shape == array.shape, (array.name, values.shape, array.shape)
    raw = np.ascontiguousarray(values, dtype=array.dtype).data.cast("B")
    return raw, _blosc().encode(np.frombuffer(raw, array.dtype)) if array.compressed else raw


def decode_chunk(array: ArraySpec, stored: Bytes) -> NDArray[Any]:
    """The values of a chunk, in the shape of the array's row; a view of `stored` where the array is not compressed.

    Raises:
        ValueError: they are more or fewer than the row has.
    """
    if array.compressed:
        return _decompressed(array, stored)
    if len(stored) != array.nbytes:
        raise ValueError(f"has {len(stored)} bytes, not {array.nbytes}")
    return np.ndarray(array.shape, array.dtype, stored)


def _decompressed(array: ArraySpec, stored: Bytes) -> NDArray[Any]:
    values = np.empty(array.shape, array.dtype)
    try:
        _blosc().decode(stored, values)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    return values


@cache
def _blosc() -> Any:
    """Zarr's `blosc` codec with the settings of the format. One thread: forked readers must not meet its pool."""
    import numcodecs.blosc

    numcodecs.blosc.use_threads = False
    return numcodecs.blosc.Blosc(cname="zstd", clevel=7, shuffle=numcodecs.blosc.BITSHUFFLE, blocksize=0)
