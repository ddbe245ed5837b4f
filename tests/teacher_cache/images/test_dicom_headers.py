"""Headers that scanners and converters write, or libraries read, incorrectly: rendered per the standard or rejected.

What is expected is arithmetic on the values that a file was made from (PS3.3 C.7.6.3.1, C.11.1, C.11.2; PS3.5 8.1.1).
"""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from dicoms import compressed, picture, written
from medalign.teacher_cache.images import UnreadableImage, decode_image, looks_like_dicom
from odd_dicoms import GRAY, GRAY12
from odd_rasters import saved, scene
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

RANDOM = np.random.default_rng(11)


def levels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data).rgb).astype(int)


def grays(data: bytes) -> np.ndarray:
    return levels(data)[..., 0]


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(data)
    assert "Error" not in caught.value.reason
    return caught.value.reason


def stretched(values: np.ndarray) -> np.ndarray:
    return 255 * (values - values.min()) / (values.max() - values.min())


PACKINGS = {
    "8 bits, packed": (8, lambda entries, order: packed(entries, order)),
    "8 bits in words": (8, lambda entries, order: entries.astype(f"{order}u2").tobytes()),
    "8 bits in words called 16": (16, lambda entries, order: entries.astype(f"{order}u2").tobytes()),
    "16 bits": (16, lambda entries, order: (entries * 257).astype(f"{order}u2").tobytes()),
    "upper byte of 16 bits": (16, lambda entries, order: (entries * 256).astype(f"{order}u2").tobytes()),
}


def packed(entries: np.ndarray, order: str) -> bytes:
    """Two entries per word, the first one in the low byte."""
    even = np.append(entries, 0)[: len(entries) + len(entries) % 2].astype(np.uint8)
    return even.view("<u2").astype(f"{order}u2").tobytes()


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("entries", "first", "deep"), [(256, 0, False), (200, 30, False), (1000, -20, True)])
def test_palettes(syntax, packing, entries, first, deep):
    indices = RANDOM.integers(0, 256, (9, 14)) if not deep else RANDOM.integers(-30, 1100, (9, 14))
    pixels = indices.astype(np.int16 if deep else np.uint8)
    tables = [RANDOM.integers(0, 256, entries) for _ in range(3)]
    for table in tables:
        table[:2] = 0, 255
    bits, pack = PACKINGS[packing]
    dataset = picture(pixels, PhotometricInterpretation="PALETTE COLOR")
    order = ">" if syntax == "big endian" else "<"
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "SS" if deep else "US", [entries, first, bits])
        dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", pack(table, order))
    expected = np.stack([table[np.clip(indices - first, 0, entries - 1)] for table in tables], axis=2)
    assert abs(levels(written(dataset, syntax)) - expected).max() <= 1


def test_an_incomplete_palette_is_rejected_and_named():
    dataset = picture(GRAY, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes(range(256)))
    short = written(dataset)
    assert len(np.unique(levels(short))) > 200
    dataset.GreenPaletteColorLookupTableData = bytes(100)
    assert "100 bytes for 256 entries" in reason(written(dataset))
    del dataset.GreenPaletteColorLookupTableData
    assert "Green Palette Color Lookup Table Data (0028,1202)" in reason(written(dataset))


def gray_table(keyword: str, entries: np.ndarray, first: int, bits: int, *, vr: str = "US", data: bytes | None = None):
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US" if data is None else "OW", entries.tolist() if data is None else data)
    return {keyword: [item]}


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_first_value_of_a_voi_table_has_the_sign_of_its_input(syntax, vr):
    stored = RANDOM.integers(0, 4096, (9, 14)).astype(np.uint16)
    entries = np.sort(RANDOM.integers(0, 65536, 3000))
    entries[-1] = 65535
    first = -900 if vr == "SS" else 65536 - 900
    values = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}
    dataset = picture(stored, **values, **gray_table("VOILUTSequence", entries, first, 16, vr=vr))
    expected = entries[np.clip(stored.astype(int) - 1024 + 900, 0, 2999)] / 65535 * 255
    assert abs(grays(written(dataset, syntax)) - expected).max() <= 0.5001


@pytest.mark.parametrize(("used", "described"), [(8, 16), (10, 16), (12, 16), (12, 8), (16, 12), (8, 12), (16, 16)])
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_whose_entries_have_other_bits_than_declared(used, described, keyword):
    stored = RANDOM.integers(0, 256, (9, 14)).astype(np.uint8)
    entries = np.sort(RANDOM.integers(0, 1 << used, 256))
    entries[0], entries[-1] = 0, (1 << used) - 1
    stored[0, :2] = 0, 255
    data = written(picture(stored, **gray_table(keyword, entries, 0, described)))
    assert abs(grays(data) - 255 * entries[stored] / ((1 << used) - 1)).max() <= 0.5001


@pytest.mark.parametrize("syntax", ["explicit", "big endian"])
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("signed", [False, True])
def test_tables_of_bytes_and_tables_for_8_bit_pixels(syntax, keyword, signed):
    stored = RANDOM.integers(-128 if signed else 0, 128, (9, 14)).astype(np.int8 if signed else np.uint8)
    first = -128 if signed else 0
    entries = np.arange(1000) * 255 // 999
    stored[0, :2] = first, 127
    data = packed(entries, ">" if syntax == "big endian" else "<")
    vr = "SS" if signed else "US"
    dataset = picture(stored, **gray_table(keyword, entries, first, 8, vr=vr, data=data))
    expected = entries[stored.astype(int) - first].astype(float)
    if keyword == "ModalityLUTSequence":
        expected = stretched(expected)
    assert abs(grays(written(dataset, syntax)) - expected).max() <= 0.5001


@pytest.mark.parametrize("value", ["0", "", "NaN", "1e999", "none"])
@pytest.mark.parametrize("intercept", ["-1000", ""])
def test_an_invalid_slope_is_1_and_an_invalid_intercept_is_0(value, intercept):
    dataset = picture(GRAY12, BitsStored=12, WindowCenter="500.5", WindowWidth="1001")
    data = written(dataset)
    rescale = text_element(0x1052, intercept) + text_element(0x1053, value)
    data = data.replace(b"\xe0\x7f\x10\0OW", rescale + b"\xe0\x7f\x10\0OW", 1)
    units = GRAY12.astype(float) + (float(intercept) if intercept else 0)
    assert abs(grays(data) - 255 * np.clip(units / 1000, 0, 1)).max() <= 0.5001


def text_element(element: int, text: str, group: int = 0x28) -> bytes:
    value = text.encode() + b" " * (len(text) % 2)
    return struct.pack("<HH2sH", group, element, b"DS", len(value)) + value


@pytest.mark.parametrize(
    ("center", "width", "usable"),
    [
        ("", "", None),
        ("AUTO", "AUTO", None),
        ("NaN", "400", None),
        ("100", "-5", None),
        ("100", "0", None),
        ("1e400", "1", None),
        ("\\100.5", "\\101", (100.5, 101)),
        ("AUTO\\100.5", "AUTO\\101", (100.5, 101)),
        ("7\\100.5", "0\\101", (100.5, 101)),
        ("100.5\\3", "101\\9", (100.5, 101)),
        ("100.500000000000000000000", "101.00000000000000000000", (100.5, 101)),
    ],
)
def test_the_first_usable_window_is_used(center, width, usable):
    data = written(picture(GRAY))
    elements = text_element(0x1050, center) + text_element(0x1051, width)
    data = data.replace(b"\xe0\x7f\x10\0OB", elements + b"\xe0\x7f\x10\0OB", 1)
    expected = stretched(GRAY.astype(float))
    if usable:
        expected = 255 * np.clip((GRAY - (usable[0] - 0.5)) / (usable[1] - 1) + 0.5, 0, 1)
    assert abs(grays(data) - expected).max() <= 0.5001


def words_of(samples: np.ndarray, stored: int, high: int) -> np.ndarray:
    """Samples in 16-bit words, with noise in all other bits."""
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    noise = RANDOM.integers(0, 1 << 16, samples.shape)
    return ((samples & ((1 << stored) - 1)) << (high + 1 - stored) | (noise & ~mask)).astype(np.uint16)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian", "deflated", "RLE"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 9), (10, 12), (15, 14), (9, 15), (9, 12)])
def test_bits_outside_the_sample_are_ignored(syntax, signed, stored, high):
    low = -(1 << stored - 1) if signed else 0
    samples = RANDOM.integers(low, low + (1 << stored), (12, 14))
    words = words_of(samples, stored, high)
    dataset = picture(words, BitsStored=stored, HighBit=high, PixelRepresentation=int(signed))
    assert abs(grays(written(dataset, syntax)) - stretched(samples.astype(float))).max() <= 0.5001


def smooth_samples(low: int, high: int) -> np.ndarray:
    y, x = np.mgrid[0:40, 0:60]
    wave = np.sin(x / 9) * np.cos(y / 8)
    return np.round(low + (high - low) * (wave - wave.min()) / (wave.max() - wave.min())).astype(int)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("codec", ["JPEG 2000", "JPEG-LS"])
def test_overlays_in_the_words_of_a_code_stream_are_ignored(codec, signed):
    samples = smooth_samples(-2048 if signed else 0, 2047 if signed else 4095)
    drawn = (np.indices(samples.shape).sum(axis=0) // 7 % 2) << 12 | (np.indices(samples.shape)[0] > 20) << 15
    words = (samples & 4095 | drawn).astype(np.uint16)
    stream, syntax = stream_of(words, codec)
    dataset = picture(words, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    assert abs(grays(compressed(dataset, stream, syntax)) - stretched(samples.astype(float))).max() <= 0.5001


def stream_of(words: np.ndarray, codec: str):
    if codec == "JPEG-LS":
        return imagecodecs.jpegls_encode(words), JPEGLSLossless
    return imagecodecs.jpeg2k_encode(words, level=0, codecformat="j2k"), JPEG2000Lossless


@pytest.mark.parametrize("codec", ["JPEG 2000", "JPEG-LS"])
def test_a_code_stream_of_more_bits_than_the_header_says_keeps_them(codec):
    words = smooth_samples(0, 65535).astype(np.uint16)
    stream, syntax = stream_of(words, codec)
    data = compressed(picture(words, BitsStored=12, HighBit=11), stream, syntax)
    assert abs(grays(data) - stretched(words.astype(float))).max() <= 0.5001


def test_a_high_bit_that_the_words_contradict_is_ignored():
    dataset = picture(GRAY12, BitsStored=12, HighBit=15)
    odd = GRAY12 | (GRAY12 >> 8)
    dataset.PixelData = odd.tobytes()
    assert abs(grays(written(dataset)) - stretched(odd.astype(float))).max() <= 0.5001


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("window", [None, (350, 2700)])
def test_a_signed_code_stream_overrides_the_header(bits, window):
    samples = smooth_samples(-2048, 1717).astype(np.int16)
    stream = imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", bitspersample=bits)
    dataset = picture(samples, PixelRepresentation=0, BitsStored=bits)
    expected = stretched(samples.astype(float))
    if window:
        dataset.WindowCenter, dataset.WindowWidth = window
        expected = 255 * np.clip((samples - window[0] + 0.5) / (window[1] - 1) + 0.5, 0, 1)
    assert abs(grays(compressed(dataset, stream, JPEG2000Lossless)) - expected).max() <= 0.5001


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
@pytest.mark.parametrize(
    ("dtype", "stored", "padding", "vr", "value"),
    [
        (np.int16, 16, -2000, "US", 63536),
        (np.int16, 16, -2000, "SS", -2000),
        (np.int16, 16, -32768, "US", 32768),
        (np.int16, 12, -2000, "US", 2096),
        (np.uint16, 16, 63536, "SS", -2000),
        (np.int8, 8, -100, "US", 156),
    ],
)
def test_padding_has_the_sign_of_the_pixels(syntax, dtype, stored, padding, vr, value):
    pixels = np.clip(GRAY // 4, 1, 60).astype(dtype)
    pixels[:, :5] = padding
    dataset = picture(pixels, BitsStored=stored)
    dataset.add_new("PixelPaddingValue", vr, value)
    expected = stretched(np.clip(GRAY // 4, 1, 60)[:, 5:].astype(float))
    shown = grays(written(dataset, syntax))
    assert abs(shown[:, 5:] - expected).max() <= 0.5001
    assert shown[:, :5].max() == 0


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:1:1"])
def test_jpeg_with_subsampled_chroma_is_not_rgb(subsampling):
    stream = saved(scene(), "JPEG", quality=95, subsampling=subsampling)
    bare = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]  # without its JFIF segment
    dataset = picture(np.asarray(scene()), PhotometricInterpretation="RGB")
    expected = np.asarray(Image.open(io.BytesIO(stream))).astype(int)
    assert abs(levels(compressed(dataset, bare, JPEGBaseline8Bit)) - expected).mean() <= 2


def test_rgb_without_subsampling_stays_rgb():
    stream = saved(scene(), "JPEG", quality=95, subsampling=0, keep_rgb=True)
    dataset = picture(np.asarray(scene()), PhotometricInterpretation="RGB")
    assert abs(levels(compressed(dataset, stream, JPEGBaseline8Bit)) - np.asarray(scene()).astype(int)).mean() <= 4


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_color_in_jpeg_2000_is_scaled_from_the_stream(bits):
    color = (np.asarray(scene()).astype(int) * ((1 << bits) - 1) // 255).astype(np.uint16)
    stream = imagecodecs.jpeg2k_encode(color, level=0, codecformat="j2k", bitspersample=bits)
    dataset = picture(color, PhotometricInterpretation="RGB", BitsStored=16)
    assert abs(levels(compressed(dataset, stream, JPEG2000Lossless)) - np.asarray(scene())).max() <= 1


ELEMENTS = {
    "SamplesPerPixel": "Samples per Pixel (0028,0002)",
    "PhotometricInterpretation": "Photometric Interpretation (0028,0004)",
    "PlanarConfiguration": "Planar Configuration (0028,0006)",
    "Rows": "Rows (0028,0010)",
    "Columns": "Columns (0028,0011)",
    "BitsAllocated": "Bits Allocated (0028,0100)",
    "BitsStored": "Bits Stored (0028,0101)",
    "PixelRepresentation": "Pixel Representation (0028,0103)",
}


@pytest.mark.parametrize("keyword", ELEMENTS)
@pytest.mark.parametrize("syntax", ["explicit", "RLE"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_or_empty_element_is_named(keyword, syntax, empty):
    dataset = picture(np.asarray(scene()))
    written(dataset, syntax)
    if empty:
        setattr(dataset, keyword, None)
    else:
        delattr(dataset, keyword)
    text = reason(written(dataset))
    assert text == f"DICOM without {ELEMENTS[keyword]}, which says how its pixels are to be read: " + (
        "export it again from the archive, or as PNG"
    )


def test_a_missing_high_bit_follows_from_bits_stored():
    dataset = picture(GRAY12, BitsStored=12)
    del dataset.HighBit
    assert abs(grays(written(dataset)) - stretched(GRAY12.astype(float))).max() <= 0.5001


def test_bits_that_contradict_each_other_are_named():
    text = reason(written(picture(GRAY, BitsStored=12)))
    assert "Bits Stored (0028,0101) is 12" in text
    assert "Bits Allocated (0028,0100) is 8" in text


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_files_without_a_preamble_that_begin_with_a_group_length(syntax):
    data = written(picture(GRAY12, BitsStored=12), syntax)
    body = data[144 + struct.unpack("<I", data[140:144])[0] :]
    length = {
        "explicit": struct.pack("<HH2sHI", 8, 0, b"UL", 4, 60),
        "implicit": struct.pack("<HHII", 8, 0, 4, 60),
        "big endian": struct.pack(">HH2sHI", 8, 0, b"UL", 4, 60),
    }[syntax]
    for start in (length + body, body):
        assert looks_like_dicom(start)
        assert abs(grays(start) - stretched(GRAY12.astype(float))).max() <= 0.5001


@pytest.mark.parametrize(
    "values",
    [
        {"WindowCenter": 5000, "WindowWidth": 10},
        {"WindowCenter": -5000, "WindowWidth": 10, "PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 255},
        {"VOILUTSequence": gray_table("x", np.arange(256), 4000, 8)["x"]},
    ],
)
def test_varying_values_that_become_one_gray_are_rejected(values):
    text = reason(written(picture(GRAY, **values)))
    assert text.startswith("DICOM whose stored values vary from 0 to 255 and whose picture has one color: ")
    assert "export it as PNG" in text


def test_a_picture_of_one_value_is_a_picture():
    assert grays(written(picture(np.full((8, 8), 7, np.uint8)))).max() == 0
    assert grays(written(picture(np.full((8, 8), 7, np.uint8), WindowCenter=900, WindowWidth=2))).max() == 0


def test_deep_color_within_one_level_is_rejected():
    assert "one color" in reason(written(picture(np.asarray(scene()).astype(np.uint16) // 8)))


def test_lossy_values_beyond_bits_stored_are_clipped():
    """Lossy coding overshoots; masked, the brightest pixels would turn black."""
    words = np.where(smooth_samples(0, 100) > 50, 1023, 0).astype(np.uint16)
    stream = imagecodecs.jpeg2k_encode(words, level=40, codecformat="j2k", bitspersample=12, reversible=False)
    data = compressed(picture(words, BitsStored=10, HighBit=9), stream, JPEG2000)
    assert abs(grays(data) - words.astype(int) * 255 / 1023).mean() < 12


COLORS = np.asarray(scene()).astype(np.uint16)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", ["explicit", "big endian", "RLE"])
@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 15), (10, 12), (9, 15)])
def test_color_samples_are_located_by_high_bit(stored, high, syntax, planar):
    samples = COLORS << stored - 8
    words = samples << (high + 1 - stored)
    dataset = picture(words, BitsStored=stored, HighBit=high)
    if planar and syntax != "RLE":
        dataset.PlanarConfiguration = 1
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(words, 2, 0)).tobytes()
    shown = levels(written(dataset, syntax))
    assert abs(shown - samples * (255 / ((1 << stored) - 1))).max() <= 0.51


def test_shifted_ybr_samples_are_rejected():
    dataset = picture(COLORS << 8, BitsStored=12, HighBit=15, PhotometricInterpretation="YBR_FULL")
    text = reason(written(dataset))
    assert "High Bit (0028,0102) is 15 and whose Bits Stored (0028,0101) is 12" in text


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("encapsulated", [False, True])
def test_signed_color_is_rejected_with_a_reason(encapsulated, dtype):
    dataset = picture(COLORS.astype(dtype), PixelRepresentation=1)
    stream = imagecodecs.jpeg2k_encode(COLORS.astype(dtype), level=0, codecformat="j2k")
    data = compressed(dataset, stream, JPEG2000Lossless) if encapsulated else written(dataset)
    assert "Pixel Representation (0028,0103) is 1: signed samples have no color" in reason(data)
