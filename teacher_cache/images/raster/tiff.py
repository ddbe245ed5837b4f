"""Decoding TIFF files that Pillow misreads or does not support, with tifffile; the tags identify them (TIFF 6.0).

Pillow 13 ignores the polarity and sign of many formats, swaps the bytes of compressed big-endian samples twice, treats
planes of 16-bit samples as pixels, and prints a message for what its libtiff does not support.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..contrast import FEW_LEVELS, gray16, require_contrast
from ..image_errors import DAMAGED, FROM_SOURCE, MAX_PIXELS, UnreadableImage, require_size
from ..windowing import stretched
from .tiff_kinds import (
    BLACK_IS_ZERO,
    CMYK,
    FAX,
    GRAY,
    PALETTE,
    PLANES,
    RGB,
    WHITE_IS_ZERO,
    is_read_right_by_pillow,
    not_read,
)

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Classic TIFF and BigTIFF, in either byte order."""

_PREMULTIPLIED = 1
"""Value of tag 338: colors are premultiplied by alpha."""
_REDUCED = 1 | 4
"""Bits of tag 254: a reduced version of another page, or a transparency mask."""

_SEVERAL = "TIFF with several frames or pages: export the one you mean as an image of its own"
_DAMAGED = f"{DAMAGED}: {FROM_SOURCE}"

_MOST_PAGES = 1000
_MOST_SAMPLES = 5

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transformation that makes a picture upright, for each value of tag 274 of TIFF and EXIF."""

SWAPPING = tuple(ORIENTATIONS[value] for value in (5, 6, 7, 8))
"""Orientations that swap width and height."""


def decode_tiff(data: bytes) -> Image.Image | None:
    """Decode a file that Pillow misreads or does not support; `None` if Pillow reads it correctly.

    The result is upright and has mode L, RGB or I;16. Signed, 32-bit, 64-bit and floating-point samples have no known
    range, so they are stretched from the smallest to the largest finite value, all three colors with the same map.

    Raises:
        UnreadableImage: it has several pages, is too large, or is of a kind that is not a picture.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page, shrunk = _only_page(file)
            if not shrunk and is_read_right_by_pillow(page, file.byteorder == ">"):
                return None
            _require_bounded(page, len(data))
            image = _rendered(page, _samples(page))
            orientation = int(page.tags.valueof(274, 1) or 1)
    except (UnreadableImage, ImportError):
        raise
    except Exception as error:  # tifffile and its codecs raise any exception for damaged files
        if "imagecodecs" in str(error):  # tifffile's message if it is not installed
            raise ImportError from error
        raise UnreadableImage(_DAMAGED) from error
    transpose = ORIENTATIONS.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def unread_tiff(data: bytes) -> UnreadableImage:
    """The error for a file that neither tifffile nor Pillow supports; it names the kind of file."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return not_read(_only_page(file)[0])
    except UnreadableImage as error:
        return error
    except Exception:  # tifffile raises any exception for damaged files
        return UnreadableImage(_DAMAGED)


def _only_page(file: Any) -> tuple[Any, bool]:
    """The page with the picture, and whether there are also reduced versions of it or masks."""
    full: list[Any] = []
    others: list[Any] = []
    offsets: set[int] = set()
    for number in range(_MOST_PAGES):
        try:
            page = file.pages[number].aspage()
        except IndexError:
            break
        if page.offset in offsets:  # a directory whose next one is an earlier one
            break
        offsets.add(page.offset)
        if int(page.subfiletype) & _REDUCED:
            others.append(page)
        else:
            full.append(page)
        if len(full) > 1:
            break
    frames = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
    if len(full) > 1 or frames > 1 or (not full and len(others) > 1):
        raise UnreadableImage(_SEVERAL)
    if not full and not others:
        raise UnreadableImage(_DAMAGED)
    if (full or others)[0].imagedepth > 1:
        raise UnreadableImage(_SEVERAL)
    return (full or others)[0], bool(full and others)


def _require_bounded(page: Any, size: int) -> None:
    """Check that the data described by the tags exist and that a decoder can safely allocate memory for them.

    Raises:
        UnreadableImage: they do not, or it cannot.
    """
    require_size(page.imagewidth, page.imagelength)
    if page.samplesperpixel > _MOST_SAMPLES:
        raise UnreadableImage(f"TIFF of {page.samplesperpixel} samples in a pixel: export it as RGB or gray")
    if page.tiledepth != 1 or (page.is_tiled and page.tilewidth * page.tilelength > MAX_PIXELS):
        raise UnreadableImage("TIFF of volumes or of tiles larger than its picture: export it as PNG")
    if page.dtype is None:
        raise UnreadableImage("TIFF with samples of a type that medalign does not support: save it with 8 or 16 bits")
    counted = 279 in page.tags or 325 in page.tags  # if they are missing, uncompressed strips have their full length
    places = list(zip(page.dataoffsets, page.databytecounts if counted else [1], strict=False))
    if not places or any(offset == 0 or count == 0 or offset + count > size for offset, count in places):
        raise UnreadableImage(_DAMAGED)


def _samples(page: Any) -> NDArray[Any]:
    """Samples [height, width, samples], in the machine's byte order."""
    height, width = page.imagelength, page.imagewidth
    values = np.asarray(page.asarray(maxworkers=1))
    if page.planarconfig == PLANES:
        return np.moveaxis(values.reshape(page.samplesperpixel, height, width), 0, 2)
    return values.reshape(height, width, page.samplesperpixel)


def _rendered(page: Any, samples: NDArray[Any]) -> Image.Image:
    """Gray from one channel, or RGB; other channels (alpha) are dropped, as the students' own processors do."""
    photometric, bits = _photometric(page, samples.shape[2]), page.bitspersample
    if photometric == PALETTE:
        return _by_palette(page, samples)
    premultiplied = photometric == RGB and samples.shape[2] == 4 and tuple(page.extrasamples) == (_PREMULTIPLIED,)
    inks = photometric == CMYK and samples.shape[2] == 4 + len(page.extrasamples)
    if samples.dtype.kind == "u" and bits in (8, 16) and (premultiplied or inks):
        return _by_pillow(np.ascontiguousarray(samples[..., :4]), "RGBa" if premultiplied else "CMYK")
    if photometric in GRAY and samples.shape[2] <= 2:
        samples = samples[..., 0]
    elif photometric == RGB and samples.shape[2] >= 3:
        samples = samples[..., :3]
    else:
        raise not_read(page)
    whole = samples.dtype.kind in "ub" and bits <= 16
    if whole:
        shown = _whole_numbers(samples, bits, inverted=photometric == WHITE_IS_ZERO)
    else:
        shown = stretched(-samples.astype(np.float64) if photometric == WHITE_IS_ZERO else samples)
    if shown.dtype == np.uint16:
        if shown.ndim == 2:
            return gray16(shown)
        colors = (shown >> 8).astype(np.uint8)
        require_contrast(samples, colors, "16-bit TIFF", FEW_LEVELS)
        return Image.fromarray(colors)
    return Image.fromarray(np.ascontiguousarray(shown))


def _by_palette(page: Any, samples: NDArray[Any]) -> Image.Image:
    """RGB from the upper 8 bits of the color map's entries.

    A map without an entry above 255 is treated as 8 bits, as in libtiff's tools: some writers do not scale it.
    """
    table = page.colormap
    if table is None:
        raise not_read(page, "palette without a color map")
    if samples.dtype.kind != "u" or len(page.extrasamples) + 1 != samples.shape[2] or samples.max() >= table.shape[1]:
        raise not_read(page)
    levels = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    colors = np.ascontiguousarray(levels.T[samples[..., 0]])
    require_contrast(samples[..., 0], colors, "TIFF", "its palette has one color; save it as PNG")
    return Image.fromarray(colors)


def _photometric(page: Any, samples: int) -> int:
    """Tag 262; if it is missing, libtiff's default."""
    if 262 in page.tags:
        return int(page.photometric)
    if samples >= 3:
        return RGB
    return WHITE_IS_ZERO if page.compression in FAX else BLACK_IS_ZERO


def _by_pillow(samples: NDArray[Any], mode: str) -> Image.Image:
    """RGB from the upper 8 bits of four samples, converted by Pillow: from premultiplied alpha, or from CMYK."""
    colors = (samples >> 8 * (samples.dtype.itemsize - 1)).astype(np.uint8)
    image = Image.frombytes(mode, colors.shape[1::-1], colors.tobytes())
    shown = (image.convert("RGBA") if mode == "RGBa" else image).convert("RGB")
    require_contrast(samples, np.asarray(shown), f"{8 * samples.dtype.itemsize}-bit TIFF", FEW_LEVELS)
    return shown


def _whole_numbers(samples: NDArray[Any], bits: int, *, inverted: bool) -> NDArray[Any]:
    """Scale unsigned samples of up to 16 bits to the full range of 8 or 16 bits."""
    if inverted:
        samples = ((1 << bits) - 1) - samples.astype(np.uint16)
    if bits > 8:
        return samples.astype(np.uint16) << (16 - bits)
    return (samples.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
