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


@pytest.mark.parametrize("more", range(1, 10))
def test_a_block_ends_within_the_frame(more):
    """The last block ends with the frame; each byte more would be read from behind it."""
    data = bytearray(frame([24, 31], block(3) + block(3), 64, 32))
    check_frame(bytes(data), 64)
    struct.pack_into("<I", data, 31, 3 + more)
    with pytest.raises(ValueError, match=f"has a blosc block of {3 + more} bytes at byte 31 of 38"):
        check_frame(bytes(data), 64)


@pytest.mark.parametrize("length", [0, 33, 2**31, 2**32 - 1])
def test_a_block_has_at_least_a_byte_and_at_most_those_of_its_values(length):
    data = bytearray(frame([24, 60], block(32) + block(32), 64, 32))
    check_frame(bytes(data), 64)
    struct.pack_into("<I", data, 24, length)
    with pytest.raises(ValueError, match=f"has a blosc block of {length} bytes at byte 24 of 96"):
        check_frame(bytes(data), 64)


def test_the_length_of_the_last_block_lies_within_the_frame():
    """A block at the last possible byte has no room for itself, and one behind it none for its length."""
    data = frame([24, 31], block(3) + block(3), 64, 32)
    for offset, message in ((34, "of 0 bytes at byte 34 of 38"), (35, "at byte 35 of 38"), (38, "at byte 38 of 38")):
        changed = bytearray(data)
        struct.pack_into("<I", changed, 20, offset)
        with pytest.raises(ValueError, match=f"has a blosc block {message}"):
            check_frame(bytes(changed), 64)


def header(**fields: int) -> bytes:
    """A frame of stored values, of which some numbers of the header are changed."""
    values = {"version": 2, "other": 1, "flags": 0x96, "typesize": 2, "nbytes": 64, "blocksize": 64, "encoded": 80}
    return struct.pack("<BBBBIII", *(values | fields).values()) + bytes(64)


@pytest.mark.parametrize("fields", [{}, {"blocksize": 1}, {"blocksize": 63}, {"other": 9}])
def test_stored_values_follow_the_header(fields):
    check_frame(header(**fields), 64)
    for data in (header(**fields) + b"\0", header(**fields)[:-1]):
        with pytest.raises(ValueError, match=f"but has {len(data)} bytes"):
            check_frame(data, 64)
        fitting = bytearray(data)
        struct.pack_into("<I", fitting, 12, len(data))
        with pytest.raises(ValueError, match=f"stores 64 uncompressed bytes in {len(data) - 16}"):
            check_frame(bytes(fitting), 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 1}, "is not blosc"),
        ({"version": 3}, "is not blosc"),
        ({"typesize": 1}, "is not blosc"),
        ({"typesize": 4}, "is not blosc"),
        ({"flags": 0x92}, "is not blosc"),  # no bit shuffle
        ({"flags": 0x97}, "is not blosc"),  # byte shuffle, too
        ({"flags": 0x86}, "is not blosc"),  # split blocks
        ({"flags": 0x36}, "is not blosc"),  # LZ4
        ({"nbytes": 63}, "decode to 63, but has 80 bytes, which should decode to 64"),
        ({"nbytes": 65}, "decode to 65"),
        ({"encoded": 79}, "for 79 bytes"),
        ({"encoded": 81}, "for 81 bytes"),
        ({"blocksize": 0}, "has blosc blocks of 0 bytes for 64"),
        ({"blocksize": 65}, "has blosc blocks of 65 bytes for 64"),
    ],
)
def test_other_headers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        check_frame(header(**fields), 64)


def test_a_frame_has_a_header():
    check_frame(header(nbytes=0, blocksize=1, encoded=16)[:16], 0)
    with pytest.raises(ValueError, match="has 15 bytes, fewer than the 16 of a blosc header"):
        check_frame(header()[:15], 0)


def test_a_last_block_that_is_shorter_is_a_block():
    """64 bytes in blocks of 48 are two blocks."""
    check_frame(frame([24, 31], block(3) + block(3), 64, 48), 64)
    with pytest.raises(ValueError, match="has a blosc block at byte 39 of 38"):
        check_frame(frame([24, 39], block(3) + block(3), 64, 48), 64)
    with pytest.raises(ValueError, match="has 20 bytes, too few for 2 blosc blocks"):
        check_frame(frame([24], b"", 64, 48), 64)
