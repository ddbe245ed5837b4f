"""Rare kinds of TIFF: decoded according to their tags (TIFF 6.0), or rejected with the name of the kind.

The files are built here or by tifffile; what is expected is arithmetic on the values that they hold.
"""

import struct

import numpy as np
import pytest
from medalign.teacher_cache.images import UnreadableImage, decode_image
from odd_rasters import gray_scene, scene

GRAY = np.asarray(gray_scene())
COLOR = np.asarray(scene())


def shown(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data).rgb).astype(int)


def close(data: bytes, expected: np.ndarray, gap: float = 1) -> None:
    assert abs(shown(data) - (expected if expected.ndim == 3 else expected[..., None])).max() <= gap


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    return caught.value.reason


def file_of(width: int, height: int, bits: list[int], photometric: int, data: bytes, **more: list[int]) -> bytes:
    """One strip and its tags, little endian; `more`: tags of short numbers, as `t530=[2, 2]`."""
    numbers = {
        256: [width],
        257: [height],
        258: bits,
        259: [1],
        262: [photometric],
        273: [8],
        277: [len(bits)],
        278: [height],
        279: [len(data)],
    } | {int(name[1:]): values for name, values in more.items()}
    data += b"\0" * (len(data) % 2)
    after = 8 + len(data) + 2 + 12 * len(numbers) + 4
    directory, beside = struct.pack("<H", len(numbers)), b""
    for tag, values in sorted(numbers.items()):
        kind = "L" if tag in (273, 279) else "H"
        body = struct.pack(f"<{len(values)}{kind}", *values)
        if len(body) > 4:
            body, beside = struct.pack("<I", after + len(beside)), beside + body
        directory += struct.pack("<HHI", tag, 4 if kind == "L" else 3, len(values)) + body.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4) + beside


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of samples with this number of bits, highest bit first; each row starts at a byte (TIFF 6.0, tag 258)."""
    rows = values.reshape(len(values), -1, 1).astype(np.int64) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(rows.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_gray_of_few_bits(bits, white_is_zero):
    values = GRAY >> (8 - bits)
    data = file_of(*GRAY.shape[::-1], [bits], 0 if white_is_zero else 1, packed(values, bits))
    expected = values.astype(float) * 255 / (2**bits - 1)
    close(data, 255 - expected if white_is_zero else expected)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_gray_with_another_channel(kind, white_is_zero, planar):
    scale = 257 if kind == "u2" else 1
    values = np.stack([GRAY, GRAY[::-1]], axis=2).astype(kind) * np.array(scale, kind)
    data = with_planes(values, 0 if white_is_zero else 1, planar)
    close(data, 255 - GRAY.astype(int) if white_is_zero else GRAY)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("extra", [0, 2])
def test_cmyk_with_alpha(extra, kind, planar):
    """Red is what neither cyan nor black covers: with K = 0 it is 255 - C."""
    scale = 257 if kind == "u2" else 1
    inks = np.concatenate([255 - COLOR, np.zeros_like(COLOR[..., :1]), COLOR[..., :1]], axis=2)
    planes = inks.astype(kind) * np.array(scale, kind)
    close(with_planes(planes, 5, planar, t338=[extra]), COLOR)


def with_planes(values: np.ndarray, photometric: int, planar: int, **more: list[int]) -> bytes:
    """Samples [height, width, samples], interleaved (1) or in planes (2: one strip each)."""
    height, width, samples = values.shape
    bits = [8 * values.itemsize] * samples
    if planar == 1:
        return file_of(width, height, bits, photometric, values.tobytes(), **more)
    length = height * width * values.itemsize
    strips = {"t273": [8 + number * length for number in range(samples)], "t279": [length] * samples}
    return file_of(width, height, bits, photometric, np.moveaxis(values, 2, 0).tobytes(), **strips, t284=[2], **more)


RAMP = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2])


@pytest.mark.parametrize("scale", [257, 1])
def test_palettes_with_a_map_of_8_bits(scale):
    """Some writers put 8-bit values into the 16-bit map; libtiff's tools recognize such a map by its values."""
    data = file_of(*GRAY.shape[::-1], [8], 3, GRAY.tobytes(), t320=(RAMP * scale).ravel().tolist())
    close(data, np.moveaxis(RAMP[:, GRAY], 0, 2), 0)


def test_palettes_of_16_bits():
    ramp = np.stack([np.arange(65536), np.arange(65536)[::-1], np.arange(65536) // 2])
    values = GRAY.astype("<u2") * 257
    data = file_of(*GRAY.shape[::-1], [16], 3, values.tobytes(), t320=ramp.ravel().tolist())
    close(data, np.moveaxis(ramp[:, values] >> 8, 0, 2), 0)


@pytest.mark.parametrize(
    ("bits", "photometric", "tags", "kind"),
    [
        ([8, 8, 8], 6, {"t530": [2, 2]}, "YCbCr, 3 samples of 8 bits, uncompressed, with fewer chroma samples"),
        ([8, 8, 8], 6, {"t530": [2, 1]}, "YCbCr, 3 samples of 8 bits, uncompressed, with fewer chroma samples"),
        ([8, 8], 6, {}, "YCbCr, 2 samples of 8 bits"),
        ([5, 6, 5], 2, {}, "RGB, 3 samples of 5, 6, 5 bits"),
        ([8], 3, {}, "palette without a color map"),
        ([8] * 3, 1, {"t338": [0, 0]}, "gray, 3 samples of 8 bits"),
        ([8] * 5, 5, {}, "CMYK, 5 samples of 8 bits"),
        ([8], 32803, {}, "color filter array, 1 sample of 8 bits"),
        ([4] * 4, 5, {}, "CMYK, 4 samples of 4 bits"),
        ([8], 60000, {}, "photometric interpretation 60000"),
    ],
)
def test_unsupported_kinds_of_intact_files_are_named(bits, photometric, tags, kind):
    data = file_of(*GRAY.shape[::-1], bits, photometric, bytes(range(256)) * 30, **tags)
    assert reason(data).startswith("TIFF of a kind that medalign does not support (" + kind)
    assert reason(data).endswith("): save it as PNG")


def test_half_a_file_is_reported_as_truncated():
    data = file_of(*GRAY.shape[::-1], [3], 1, packed(GRAY >> 5, 3))
    cut = data[:8] + data[8 + GRAY.size // 4 :]  # the directory lies before the offset that the header gives
    assert "truncated or damaged image data" in reason(cut)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"BM\0\0\0\0\0\0\0\0noise", b"GIF89a"])
def test_known_first_bytes_are_not_reported_as_an_unknown_format(start):
    assert "not an image" not in reason(start)
