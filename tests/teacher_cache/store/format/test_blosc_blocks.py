"""Where blocks of a Blosc frame may be; README_CHUNK_FORMAT.rst of c-blosc: header, offsets of blocks, blocks."""

import struct

import pytest
from medalign.teacher_cache.store.format.blosc_frame import check_frame


def frame(offsets: list[int], rest: bytes, nbytes: int, blocksize: int) -> bytes:
    """A frame of 16-bit values: bit shuffle, Zstandard, blocks not split."""
    body = struct.pack(f"<{len(offsets)}I", *offsets) + rest
    return struct.pack("<BBBBIII", 2, 1, 0x94, 2, nbytes, blocksize, 16 + len(body)) + body


def block(length: int) -> bytes:
    return struct.pack("<I", length) + bytes(length)


def test_blocks_begin_after_the_offsets():
    check_frame(frame([24, 31], block(3) + block(3), 64, 32), 64)
    check_frame(frame([20], block(3), 64, 64), 64)


@pytest.mark.parametrize("offset", [0, 16, 17, 19, 22, 23])
def test_a_block_among_the_offsets_is_refused(offset):
    with pytest.raises(ValueError, match=f"has a blosc block at byte {offset} of 38"):
        check_frame(frame([24, offset], block(3) + block(3), 64, 32), 64)


def test_a_frame_too_short_for_its_offsets_is_refused():
    data = frame([24, 24], b"", 96, 32)
    with pytest.raises(ValueError, match="has 24 bytes, too few for 3 blosc blocks"):
        check_frame(data, 96)
