"""TIFF, JPEG 2000 and JPEG files that Pillow misreads: rendered according to their tags and headers, or rejected.

The files are built here, byte by byte or by OpenJPEG; what is expected is arithmetic on the values they hold.
"""

import io
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from medalign.teacher_cache.images import UnreadableImage, decode_image
from odd_rasters import gray16, gray_scene, png, png_chunk, saved, scene, tiff
from PIL import Image

COLOR = np.asarray(scene()).astype(int)
GRAY = np.asarray(gray_scene()).astype(int)
HEIGHT, WIDTH = GRAY.shape


def levels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data).rgb).astype(int)


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    assert "Error" not in caught.value.reason
    return caught.value.reason


def close(data: bytes, expected: np.ndarray, gap: float) -> None:
    shown = levels(data)
    assert abs(shown - (expected if expected.ndim == 3 else expected[..., None])).max() <= gap


def stretched(values: np.ndarray) -> np.ndarray:
    exact = values.astype(float)
    return 255 * (exact - exact.min()) / (exact.max() - exact.min())


def tiff_of(
    values: np.ndarray, *, order: str = "<", photometric: int = 1, planar: int = 1, compression: int = 1, rows: int = 7
) -> bytes:
    """A TIFF with strips, built from tags: [height, width] or [height, width, samples]."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    bits, form = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    planes = [values[..., number] for number in range(samples)] if planar == 2 else [values]
    swapped = [plane.astype(plane.dtype.newbyteorder(order)) for plane in planes]
    strips = [plane[top : top + rows].tobytes() for plane in swapped for top in range(0, values.shape[0], rows)]
    strips = [zlib.compress(strip) if compression == 8 else strip for strip in strips]
    offsets = [8 + sum(len(strip) for strip in strips[:number]) for number in range(len(strips))]
    end = 8 + sum(map(len, strips))
    tags = {
        256: ("L", [values.shape[1]]),
        257: ("L", [values.shape[0]]),
        258: ("H", [bits] * samples),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        273: ("L", offsets),
        277: ("H", [samples]),
        278: ("L", [rows]),
        279: ("L", [len(strip) for strip in strips]),
        284: ("H", [planar]),
        339: ("H", [form] * samples),
    }
    directory, beside = struct.pack(f"{order}H", len(tags)), b""
    after = end + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in tags.items():
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack(f"{order}I", after + len(beside))
            beside += data
        directory += struct.pack(f"{order}HHI", tag, 4 if kind == "L" else 3, len(numbers)) + place
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", end)
    return start + b"".join(strips) + directory + bytes(4) + beside


GRAYS = {
    "u1": GRAY.astype(np.uint8),
    "u2": (GRAY * 257).astype(np.uint16),
    "i1": (GRAY - 128).astype(np.int8),
    "i2": (GRAY * 200 - 20000).astype(np.int16),
    "u4": (GRAY.astype(np.int64) * 16_000_000).astype(np.uint32),
    "i4": (GRAY.astype(np.int64) * 16_000_000 - 2_040_000_000).astype(np.int32),
    "f2": (GRAY / 255 - 0.25).astype(np.float16),
    "f4": (GRAY / 255 * 3 - 1).astype(np.float32),
    "f8": GRAY / 255e6,
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("kind", GRAYS)
def test_gray_tiff(kind, white_is_zero, compression, order):
    data = tiff_of(GRAYS[kind], order=order, compression=compression, photometric=0 if white_is_zero else 1)
    close(data, 255 - GRAY if white_is_zero else GRAY, 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4"])
def test_color_tiff(kind, alpha, planar, compression, order):
    scale, offset = {"u1": (1, 0), "u2": (257, 0), "i2": (200, -20000), "u4": (16_000_000, 0), "f4": (0.01, -1)}[kind]
    values = (COLOR.astype(float) * scale + offset).astype(kind)
    if alpha:
        values = np.dstack([values, np.full_like(values[..., :1], values.max())])
    data = tiff_of(values, order=order, compression=compression, photometric=2, planar=planar)
    close(data, COLOR if kind in ("u1", "u2") else stretched(values[..., :3]), 1)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_compressions_and_predictors(compression, predictor, order):
    if predictor and compression == "packbits":
        pytest.skip("has none")
    for values in (GRAYS["u2"], GRAYS["i2"], GRAYS["f4"]):
        file = io.BytesIO()
        options = {"predictor": True} if predictor else {}
        tifffile.imwrite(file, values, compression=compression, byteorder=order, **options)
        close(file.getvalue(), GRAY, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["u2", "f4", "i1"])
def test_tiff_orientations(kind, orientation):
    undo = [lambda a: a, np.fliplr, lambda a: a[::-1, ::-1], np.flipud, np.transpose, np.rot90]
    undo += [lambda a: np.rot90(a.T, 2), lambda a: np.rot90(a, -1)]
    file = io.BytesIO()
    extra = [(274, 3, 1, orientation, True)]
    stored = np.ascontiguousarray(undo[orientation - 1](GRAYS[kind]))
    tifffile.imwrite(file, stored, extratags=extra, photometric="minisblack")
    close(file.getvalue(), GRAY, 1)


@pytest.mark.parametrize("first", [False, True])
def test_a_thumbnail_is_not_a_second_page(first):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for thumbnail in (first, not first):
            values = np.zeros((8, 12), np.uint8) if thumbnail else GRAY.astype(np.uint8)
            writer.write(values, subfiletype=int(thumbnail), photometric="minisblack")
    close(file.getvalue(), GRAY, 0)


def test_stacks_in_one_directory_are_several_pages():
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([GRAYS["u2"]] * 3), imagej=True)
    assert "several frames or pages" in reason(file.getvalue())


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({277: 9, 258: 8}, "9 samples in a pixel"),
        ({273: 0}, "truncated or damaged"),
        ({279: 900_000}, "truncated or damaged"),
        ({256: 60_000, 257: 60_000}, "more than the 80000000"),
    ],
)
def test_impossible_tags_are_rejected_with_a_reason(tags, words):
    data = tiff_of(GRAYS["i2"], rows=HEIGHT)
    for tag, value in tags.items():
        at = data.rindex(struct.pack("<H", tag) + (b"\x04\0" if tag in (256, 257, 273, 279) else b"\x03\0"))
        data = data[: at + 8] + struct.pack("<I", value) + data[at + 12 :]
    assert words in reason(data)


@pytest.mark.parametrize("tag", [262, 279, 284, 339])
def test_tags_that_writers_omit(tag):
    """Without polarity, black is zero; without lengths, a strip has all its rows."""
    data = tiff_of(GRAYS["u2"], rows=HEIGHT)
    at = data.rindex(struct.pack("<H", tag) + (b"\x04\0" if tag == 279 else b"\x03\0"))
    close(data[:at] + struct.pack("<H", {262: 263, 279: 280, 284: 285, 339: 340}[tag]) + data[at + 2 :], GRAY, 1)


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_gray_jpeg_2000(bits, signed, container):
    top = (1 << bits) - 1
    values = GRAY * top // 255 - (signed << bits - 1)
    dtype = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    data = imagecodecs.jpeg2k_encode(values.astype(dtype), level=0, codecformat=container, bitspersample=bits)
    close(data, (values + (signed << bits - 1)) * 255 / top, 1)


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_color_jpeg_2000(bits, samples, container):
    values = COLOR * ((1 << bits) - 1) // 255
    if samples == 4:
        values = np.dstack([values, np.full((HEIGHT, WIDTH, 1), (1 << bits) - 1)])
    dtype = np.uint8 if bits == 8 else np.uint16
    data = imagecodecs.jpeg2k_encode(values.astype(dtype), level=0, codecformat=container, bitspersample=bits)
    close(data, COLOR, 1)


@pytest.mark.parametrize("container", ["j2k", "jp2"])
def test_jpeg_2000_without_its_second_half_is_rejected(container):
    data = imagecodecs.jpeg2k_encode(GRAYS["u2"], level=0, codecformat=container)
    assert "no end" in reason(data[: len(data) // 2] + bytes(len(data) // 2))
    close(data + bytes(32), GRAY, 1)
    if container == "jp2":
        close(data + struct.pack(">I4s", 208, b"free") + bytes(200), GRAY, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("codec", ["JPEG-LS", "lossless"])
def test_deep_jpegs(bits, codec):
    if codec == "lossless" and bits == 10:
        pytest.skip("libjpeg-turbo writes 8, 12 and 16 bits")
    values = (GRAY * ((1 << bits) - 1) // 255).astype(np.uint8 if bits == 8 else np.uint16)
    if codec == "JPEG-LS":
        data = imagecodecs.jpegls_encode(values)
        bits = max(8, int(values.max()).bit_length())
    else:
        data = imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=bits)
    close(data, values.astype(int) * 255 / ((1 << bits) - 1), 1)


def test_twelve_bit_lossy_jpeg():
    values = (GRAY * 4095 // 255).astype(np.uint16)
    data = imagecodecs.jpeg8_encode(values, level=98, bitspersample=12)
    assert abs(levels(data)[..., 0] - GRAY).mean() <= 2


@pytest.mark.parametrize("bits", [8, 10, 12, 13])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_few_bits_in_16_bit_words_are_scaled_and_marked_narrow(bits, kind):
    values = (GRAY * ((1 << bits) - 1) // 255).astype(np.uint16)
    data = tiff_of(values) if kind == "TIFF" else saved(Image.fromarray(values), "PNG" if kind == "PNG" else "PPM")
    decoded = decode_image(data)
    assert decoded.narrow
    close(data, values.astype(int) * 255 / ((1 << bits) - 1), 1)


def test_twelve_bits_in_16_bit_words_equal_a_12_bit_tiff():
    values = (GRAY * 4095 // 255).astype(np.uint16)
    pairs = values.astype(int).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    bare = tiff_of(packed.astype(np.uint8).reshape(HEIGHT, -1), rows=HEIGHT)
    for tag, value in ((256, WIDTH), (258, 12)):
        at = bare.rindex(struct.pack("<H", tag) + (b"\x04\0" if tag == 256 else b"\x03\0"))
        bare = bare[: at + 8] + struct.pack("<I", value) + bare[at + 12 :]
    assert decode_image(bare).pixel_hash == decode_image(saved(Image.fromarray(values), "PNG")).pixel_hash


def test_ordinary_pictures_are_not_narrow_and_dark_ones_are():
    for picture in (scene(), gray_scene(), gray16()):
        assert not decode_image(saved(picture, "PNG")).narrow
    dark = Image.fromarray((GRAY // 9 + 40).astype(np.uint8))
    assert decode_image(saved(dark, "PNG")).narrow
    assert (levels(saved(dark, "PNG"))[..., 0] == GRAY // 9 + 40).all(), "8-bit pictures are shown as they are"


def test_drawings_only_in_transparency_are_rejected():
    alpha = gray_scene()
    for mode in ("LA", "RGBA"):
        drawing = Image.new(mode[:-1], alpha.size, 0 if mode == "LA" else (0, 0, 0))
        drawing.putalpha(alpha)
        assert "drawn in its transparency" in reason(saved(drawing, "PNG"))
    levels_of_one = Image.fromarray((60_000 + GRAY // 64).astype(np.uint16))
    assert "16-bit gray whose stored values vary from 60000 to 60003" in reason(saved(levels_of_one, "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_only_exif_rotates_a_picture(kind):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'  # noqa: E501
    if kind == "PNG":
        data = saved(scene(), "PNG")
        text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        data = data[:33] + text + data[33:]
    else:
        data = saved(scene(), kind, xmp=xmp, quality=95)
    assert levels(data).shape == COLOR.shape


def test_unsupported_formats_are_named():
    for start, name in {
        b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
        b"\xff\x0a" + bytes(20): "JPEG XL",
        b"II\xbc\x01" + bytes(20): "JPEG XR",
        b"\0\0\0\x1cftypavif" + bytes(20): "HEIF or AVIF",
        b"\0\x05\x16\x07\0\x02\0\0" + bytes(20): "AppleDouble",
        struct.pack("<I", 348) + bytes(340) + b"n+1\0": "NIfTI",
    }.items():
        assert name in reason(start)
        assert "save" in reason(start) or "export" in reason(start) or "delete" in reason(start)


def test_a_palette_of_one_color_is_rejected():
    data = png(4, 4, png_chunk(b"PLTE", b"\1\2\3" * 4), png_chunk(b"IDAT", zlib.compress(b"\0\0\1\2\3" * 4)), color=3)
    assert "one color" in reason(data)


def test_without_imagecodecs_ordinary_files_are_read_and_other_reasons_name_it(monkeypatch):
    streams = imagecodecs.jpegls_encode(GRAYS["u2"]), imagecodecs.jpeg2k_encode(COLOR.astype(np.uint16) * 257)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for data in (saved(scene(), "JPEG"), saved(gray16(), "PNG"), tiff("tiff_lzw", scene()), tiff_of(GRAYS["i2"])):
        assert decode_image(data).width == WIDTH
    for stream in streams:
        assert "pip install --upgrade imagecodecs" in reason(stream)


@pytest.mark.parametrize("seed", range(25))
def test_mutated_tiffs_and_code_streams_are_read_or_rejected_with_a_reason(seed):
    random = np.random.default_rng(seed)
    makers = [
        lambda: tiff_of(GRAYS["i2"], order=">", compression=8),
        lambda: tiff_of(GRAYS["f4"], photometric=0),
        lambda: tiff_of((COLOR * 257).astype(np.uint16), photometric=2, planar=2),
        lambda: tiff("tiff_lzw", gray16()),
        lambda: imagecodecs.jpeg2k_encode((COLOR * 257).astype(np.uint16), level=0),
        lambda: imagecodecs.jpegls_encode(GRAYS["u2"]),
        lambda: imagecodecs.jpeg8_encode(GRAYS["u2"] >> 4, level=95, bitspersample=12),
        lambda: saved(scene(), "JPEG", progressive=True),
        lambda: saved(scene(), "JPEG", restart_marker_blocks=3),
    ]
    for make in makers:
        mutated = bytearray(make())
        for position in random.integers(0, len(mutated), random.integers(1, 6)):
            mutated[position] = random.integers(0, 256)
        if random.random() < 0.3:
            del mutated[random.integers(4, len(mutated)) :]
        refused = ""
        try:
            decode_image(bytes(mutated))
        except UnreadableImage as error:
            refused = error.reason
        assert "Error" not in refused
        assert "\n" not in refused


def png_of(values: np.ndarray, rows: int = HEIGHT, *, interlace: int = 0) -> bytes:
    """A color PNG without filters, of 8 or 16 bits, whose data end after this number of rows."""
    if interlace:
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        lines = [line for x, y, right, down in steps for line in values[y::down, x::right]]
    else:
        lines = list(values)
    bits = 8 * values.dtype.itemsize
    lines = [b"\0" + line.astype(f">u{bits // 8}").tobytes() for line in lines][: rows * len(lines) // HEIGHT]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, {3: 2, 4: 6, 2: 4}[values.shape[2]], 0, 0, interlace)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


DEEP = {
    "PNG": png_of,
    "PNG, alpha": lambda values: png_of(np.dstack([values, np.full_like(values[..., :1], 65535)])),
    "TIFF": lambda values: tiff_of(values, photometric=2),
    "deflated TIFF": lambda values: tiff_of(values, photometric=2, compression=8),
    "J2K": lambda values: imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k"),
    "JP2": lambda values: imagecodecs.jpeg2k_encode(values, level=0, codecformat="jp2"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_color_only_in_the_lower_bytes_is_rejected(kind):
    make = DEEP[kind]
    close(make((COLOR * 257).astype(np.uint16)), COLOR, 1)
    values = COLOR.astype(np.uint16)
    assert f"vary from {COLOR.min()} to " in reason(make(values))
    assert "one color: its colors differ by less than one of 256 levels" in reason(make(values))
    one_color = np.broadcast_to(np.uint16([1000, 2000, 3000]), COLOR.shape)
    close(make(np.ascontiguousarray(one_color)), np.broadcast_to([3, 7, 11], COLOR.shape), 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_pictures_of_one_color_with_alpha_are_read(mode):
    color = (10, 20, 30, 255) if mode == "RGBA" else (10, 255)
    assert decode_image(saved(Image.new(mode, (30, 20), color), "PNG")).width == 30


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_png_with_missing_rows_is_rejected(kind, interlace):
    values = (COLOR * {"u1": 1, "u2": 257}[kind]).astype(kind)
    close(png_of(values, interlace=interlace), COLOR, 0)
    black_below = values.copy()
    black_below[HEIGHT // 2 :] = 0
    close(png_of(black_below, interlace=interlace), black_below // {"u1": 1, "u2": 257}[kind], 0)
    for rows in (1, HEIGHT // 2, HEIGHT - 1):
        assert "fewer rows than its header says" in reason(png_of(values, rows, interlace=interlace))


def without_tag(data: bytes, tag: int) -> bytes:
    at = data.rindex(struct.pack("<H", tag) + b"\x03\0")
    return data[:at] + struct.pack("<H", tag + 1) + data[at + 2 :]


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_jpeg_2000_of_few_bits(bits, color, container):
    values = ((COLOR if color else GRAY) >> 8 - bits).astype(np.uint8)
    data = imagecodecs.jpeg2k_encode(values, level=0, codecformat=container, bitspersample=bits)
    close(data, values.astype(int) * 255 / ((1 << bits) - 1), 1)


def test_boxes_before_a_code_stream_change_nothing():
    data = imagecodecs.jpeg2k_encode((COLOR * 257).astype(np.uint16), level=0, codecformat="jp2")
    at = data.index(b"jp2c") - 4
    for start in (b"<a>", b"\xff\x4f\xff\x51" + bytes(40)):
        text = start + b" " * 70_000
        box = struct.pack(">I4s", 8 + len(text), b"xml ") + text
        close(data[:at] + box + data[at:], COLOR, 1)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_cmyk_tiff(kind, planar, order, compression):
    inks = np.asarray(scene().convert("CMYK")).astype(int)
    values = (inks * (257 if kind == "u2" else 1)).astype(kind)
    data = tiff_of(values, photometric=5, planar=planar, order=order, compression=compression)
    close(data, (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255, 1)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_premultiplied_alpha_is_divided_out(kind):
    alpha = np.full((HEIGHT, WIDTH, 1), 255)
    alpha[: HEIGHT // 2] = 128
    values = np.dstack([COLOR * alpha // 255, alpha]) * (257 if kind == "u2" else 1)
    file = io.BytesIO()
    tifffile.imwrite(file, values.astype(kind), photometric="rgb", extrasamples=["assocalpha"])
    close(file.getvalue(), COLOR, 3)


def test_volumes_are_several_pages():
    for values in (GRAYS["u1"], GRAYS["u2"]):
        file = io.BytesIO()
        tifffile.imwrite(file, np.stack([values] * 16), volumetric=True, tile=(16, 64, 64))
        assert "several frames or pages" in reason(file.getvalue())


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [1, 8])
def test_gray_tiff_without_polarity_has_black_at_zero(compression, kind):
    close(without_tag(tiff_of(GRAYS[kind], compression=compression, rows=HEIGHT), 262), GRAY, 1)


def test_fax_without_polarity_has_white_at_zero():
    black = GRAY > 128
    data = saved(Image.fromarray(black), "TIFF", compression="group4")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        zero_is_black = file.pages[0].photometric == 1
    close(without_tag(data, 262), (~black if zero_is_black else black) * 255, 0)
