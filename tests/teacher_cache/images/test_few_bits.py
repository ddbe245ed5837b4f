"""Samples and entries of 10 or 12 bits in 16-bit words are shown over the full range, not nearly black."""

import imagecodecs
import numpy as np
import pytest
from dicoms import picture, written
from medalign.teacher_cache.images import decode_image
from odd_rasters import gray_scene
from pydicom.dataset import Dataset

GRAY = np.asarray(gray_scene())
INDICES = np.arange(256, dtype=np.uint8).reshape(8, 32)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_png_gray_with_alpha_is_shown_like_gray(bits):
    """Alpha is dropped, which gives the same picture as the samples without it."""
    values = GRAY.astype(np.uint16) * 257 >> (16 - bits)
    alone = decode_image(imagecodecs.png_encode(values))
    opaque = np.full_like(values, 65535)
    shown = decode_image(imagecodecs.png_encode(np.stack([values, opaque], axis=2)))
    assert (shown.shown.mode, shown.pixel_hash) == (alone.shown.mode, alone.pixel_hash)
    scale = 255 / (2**bits - 1)
    assert abs(np.asarray(shown.shown).astype(float) - values * scale).max() < 1.25  # shifted, then the upper 8 bits


def test_gray_with_varying_alpha_is_shown_like_gray():
    values = GRAY.astype(np.uint16) * 257
    shown = decode_image(imagecodecs.png_encode(np.stack([values, values[::-1]], axis=2)))
    assert shown.pixel_hash == decode_image(imagecodecs.png_encode(values)).pixel_hash


def with_palette(entries: list[np.ndarray], described: int, order: str = "<") -> Dataset:
    dataset = picture(INDICES, PhotometricInterpretation="PALETTE COLOR")
    for name, table in zip(("Red", "Green", "Blue"), entries, strict=True):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, described])
        dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", table.astype(f"{order}u2").tobytes())
    return dataset


@pytest.mark.parametrize("syntax", ["explicit", "big endian"])
@pytest.mark.parametrize(("described", "used"), [(10, 10), (12, 12), (14, 14), (12, 16), (10, 16), (8, 16), (16, 16)])
def test_palettes_use_the_bits_of_their_descriptor(described, used, syntax):
    """Described as fewer than 16, entries that do not fit have 16."""
    random = np.random.default_rng(described + used)
    tables = [np.append(random.integers(0, 1 << used, 254), [0, (1 << used) - 1]) for _ in range(3)]
    tables[1] = tables[1] // 2
    data = written(with_palette(tables, described, ">" if syntax == "big endian" else "<"), syntax)
    expected = np.stack([table.reshape(8, 32) * 255 / ((1 << used) - 1) for table in tables], axis=2)
    assert abs(np.asarray(decode_image(data).rgb) - expected).max() <= 1


def test_a_dark_palette_of_16_bits_stays_dark():
    """12 bits declared as 16, or a dark palette: they cannot be distinguished, and count as narrow."""
    decoded = decode_image(written(with_palette([np.arange(256) * 16] * 3, 16)))
    assert decoded.narrow
    assert abs(np.asarray(decoded.rgb)[..., 0] - INDICES * (16 * 255 / 65535)).max() <= 1
