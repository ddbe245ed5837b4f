"""Checks of a Blosc frame's header before the native decoder reads it, because c-blosc trusts the lengths in it.

Layout (c-blosc 1, README_CHUNK_FORMAT.rst): a header of 16 bytes; unless the values are stored uncompressed, a uint32
offset for each block; each block is its length (uint32) and a Zstandard stream.
"""

import struct
from typing import Final

import numpy as np

from .shard_file import Bytes

HEADER_BYTES: Final = 16
"""Also the maximum number of bytes by which a frame is longer than its values."""

_HEADER: Final = struct.Struct("<BBBBIII")
_VERSION, _TYPESIZE = 2, 2
_STORED: Final = 0x02
"""Flag: the values follow the header uncompressed."""
_FLAGS: Final = 0x94
"""Bit shuffle (0x04), blocks not split (0x10), Zstandard (4 << 5)."""
_LENGTH_BYTES: Final = 4


def check_frame(frame: Bytes, nbytes: int) -> None:
    """Check that every length and offset of a frame fits its bytes and the expected decoded size `nbytes`.

    Raises:
        ValueError: one does not, or the frame has settings that stores do not use (docs/store-format.md).
    """
    size = len(frame)
    if size < HEADER_BYTES:
        raise ValueError(f"has {size} bytes, fewer than the {HEADER_BYTES} of a blosc header")
    version, _, flags, typesize, decoded, blocksize, encoded = _HEADER.unpack_from(frame)
    if (version, flags & ~_STORED, typesize) != (_VERSION, _FLAGS, _TYPESIZE):
        raise ValueError(f"is not blosc with zstd and bit shuffle: its version is {version}, its flags are {flags:#x}")
    if decoded != nbytes or encoded != size:
        raise ValueError(
            f"has a blosc header for {encoded} bytes that decode to {decoded}, but has {size} bytes, which should "
            f"decode to {nbytes}"
        )
    if not 0 < blocksize <= max(nbytes, 1):
        raise ValueError(f"has blosc blocks of {blocksize} bytes for {nbytes} bytes of values")
    if flags & _STORED:
        if size != HEADER_BYTES + nbytes:
            raise ValueError(f"stores {nbytes} uncompressed bytes in {size - HEADER_BYTES}")
    else:
        _check_blocks(frame, nbytes, blocksize)


def _check_blocks(frame: Bytes, nbytes: int, blocksize: int) -> None:
    """Check that all blocks are within the frame."""
    blocks = -(-nbytes // blocksize)
    first = HEADER_BYTES + blocks * _LENGTH_BYTES
    if first > len(frame):
        raise ValueError(f"has {len(frame)} bytes, too few for {blocks} blosc blocks")
    for offset in np.frombuffer(frame, "<u4", blocks, HEADER_BYTES).tolist():
        if not first <= offset <= len(frame) - _LENGTH_BYTES:
            raise ValueError(f"has a blosc block at byte {offset} of {len(frame)}")
        (length,) = struct.unpack_from("<I", frame, offset)
        if not 0 < length <= min(blocksize, len(frame) - _LENGTH_BYTES - offset):
            raise ValueError(f"has a blosc block of {length} bytes at byte {offset} of {len(frame)}")
