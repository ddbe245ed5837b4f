"""The header of a Blosc frame, checked before the native decoder sees it: c-blosc believes the lengths it reads there.

Layout (c-blosc 1, README_CHUNK_FORMAT.rst): 16 bytes of header; unless the values are stored as they are, one uint32
offset for each block; each block is its length (uint32) and a Zstandard stream.
"""

import struct
from typing import Final

import numpy as np

from .shard_file import Bytes

HEADER_BYTES: Final = 16
"""Also the most by which a frame is longer than its values."""

_HEADER: Final = struct.Struct("<BBBBIII")
_VERSION, _TYPESIZE = 2, 2
_STORED: Final = 0x02
"""Flag: the values follow the header as they are."""
_FLAGS: Final = 0x94
"""Bit shuffle (0x04), blocks not split (0x10), Zstandard (4 << 5)."""
_LENGTH_BYTES: Final = 4


def check_frame(frame: Bytes, nbytes: int) -> None:
    """Check that every length and offset of a frame fits the bytes at hand and the `nbytes` that it must decode to.

    Raises:
        ValueError: one does not, or the frame is of another kind than stores hold (docs/store-format.md).
    """
    size = len(frame)
    if size < HEADER_BYTES:
        raise ValueError(f"has {size} bytes, fewer than the header of a blosc frame")
    version, _, flags, typesize, decoded, blocksize, encoded = _HEADER.unpack_from(frame)
    if (version, flags & ~_STORED, typesize) != (_VERSION, _FLAGS, _TYPESIZE):
        raise ValueError(f"is not blosc with zstd and bit shuffle: version {version}, flags {flags:#x}")
    if decoded != nbytes or encoded != size:
        raise ValueError(f"is {encoded} bytes of blosc that hold {decoded}, by its header; it has {size}, for {nbytes}")
    if not 0 < blocksize <= max(nbytes, 1):
        raise ValueError(f"has blosc blocks of {blocksize} bytes in {nbytes}")
    if flags & _STORED:
        if size != HEADER_BYTES + nbytes:
            raise ValueError(f"stores {nbytes} bytes as they are in {size - HEADER_BYTES}")
    else:
        _check_blocks(frame, nbytes, blocksize)


def _check_blocks(frame: Bytes, nbytes: int, blocksize: int) -> None:
    """Check that all blocks, and their lengths, lie within the frame."""
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
