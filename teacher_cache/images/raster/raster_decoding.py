"""Decoding raster files: JPEG, PNG, TIFF, BMP, GIF, WebP, JPEG 2000 and PNM."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..contrast import Canonical, canonical, gray16, require_contrast
from ..image_errors import DAMAGED, FROM_SOURCE, MAKE_SMALLER, MAX_PIXELS, UnreadableImage, require_size
from ..windowing import stretched
from .jpeg import decode_deep_jpeg, jpeg_head, require_scans, survey_jpeg
from .jpeg2000 import decode_jpeg2000, is_misread, require_end, siz_of
from .jpeg_damage import JpegBytes, load_whole_jpeg
from .png import deep_gray_with_alpha, require_visible_png, require_whole_png
from .tiff import ORIENTATIONS, STARTS, SWAPPING, decode_tiff, unread_tiff

Reduction = Callable[[int, int], int]
"""Maps width and height to the factor (8, 4, 2 or 1) by which a JPEG is reduced."""

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
"""The only formats that are tried, because one of Pillow's other formats starts a PostScript interpreter."""

_MOST_PLAIN_BYTES = 32 * 1024**2
"""Maximum size of a PNM in decimal digits, which Pillow parses in Python at a few megabytes per second."""

_FOREIGN = (
    (rb"\s*(<!doctype html|<html)", "an HTML page, perhaps of a failed download"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file itself"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"....ftyp(heic|heix|mif1|avif)", "HEIF or AVIF; save it as PNG"),
    (rb"....JXL |\xff\x0a", "JPEG XL; save it as PNG"),
    (rb"II\xbc", "JPEG XR; save it as PNG"),
    (rb"\x5c\x01\0\0|.{344}(n\+1|ni1)\0", "a NIfTI volume; export its slices as PNG"),
    (rb"\0\x05\x16\x07", "an AppleDouble file of macOS, which holds no picture; delete it"),
)

_KNOWN = (
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|GIF8[79]a|RIFF....WEBP|\xff\x4f\xff\x51|....jP  |P[1-6]\s"
    rb"|BM.{4}\0{4}"
)
"""First bytes of the supported formats."""

_DAMAGED = re.compile(
    r"truncated|unrecognized data stream|broken data stream|not enough image data|could not create decoder object"
    r"|cannot load this image",
    re.IGNORECASE,
)
"""Pillow's messages about truncated or invalid image data."""


def looks_like_raster(data: bytes) -> bool:
    """Whether bytes start like one of the supported formats, except DICOM."""
    return re.match(_KNOWN, data, re.DOTALL) is not None


def decode_raster(data: bytes, reduction: Reduction | None = None) -> Canonical:
    """Decode completely, rotate upright (EXIF), and convert to mode L, RGB or I;16.

    A JPEG may be decoded at a reduced size, with libjpeg's inverse transform of fewer coefficients.

    16-bit gray stays I;16. Alpha is dropped, as the students' own processors do. 32-bit and floating-point gray has no
    known range, so it is stretched from its smallest to its largest finite value.

    Raises:
        UnreadableImage: it is not an image, is truncated, animated or too large to decode safely, has several pages, or
            has a single color although the stored values vary.
    """
    image, size = _by_other_decoders(data), None
    if image is None:
        image, size = _by_pillow(data, reduction)
    return replace(canonical(image), size=size)


def decode_opened(image: Image.Image) -> Canonical:
    """Like `decode_raster`, for a picture that is already a Pillow image.

    Raises:
        UnreadableImage: see `decode_raster`; only problems that show in Pillow's image are detected.
    """
    _require_one_frame(image)
    require_size(image.width, image.height)
    kind = image.format or "image"
    shown = _canonical(image, kind)
    _require_visible(image, shown, kind)
    transpose = ORIENTATIONS.get(_orientation(image))
    return canonical(shown if transpose is None else shown.transpose(transpose))


def _by_other_decoders(data: bytes) -> Image.Image | None:
    """Decode files that Pillow does not support or misreads, with tifffile and imagecodecs; `None` for all others."""
    if data[:4] in STARTS:
        return decode_tiff(data)
    if data[:4] == b"\xff\x4f\xff\x51" or data[4:8] == b"jP  ":
        require_end(data)
        siz = siz_of(data)
        return decode_jpeg2000(data, siz) if siz is not None and is_misread(siz) else None
    head = jpeg_head(data)
    if head is not None and (head.frame in (0xC3, 0xF7) or head.precision > 8):
        return decode_deep_jpeg(data, head)
    return None


def _by_pillow(data: bytes, reduction: Reduction | None) -> tuple[Image.Image, tuple[int, int] | None]:
    """Decode with Pillow; returns the picture, and its upright size in the file if that is larger."""
    try:
        file = JpegBytes(data)
        with Image.open(file, formats=FORMATS) as opened:
            _require_one_frame(opened)
            require_size(opened.width, opened.height)
            size, factor = opened.size, 1
            kind = opened.format or ""
            if kind in ("JPEG", "MPO"):
                survey = survey_jpeg(data)
                require_scans(survey.scans, opened.width, opened.height)
                factor = reduction(*opened.size) if reduction is not None else 1
                load_whole_jpeg(data, opened, file, survey, factor)
            else:
                _require_few_digits(data)
                opened.load()
            image = _png(data, opened) if kind == "PNG" else _shown(opened, kind)
            transpose = ORIENTATIONS.get(_orientation(opened))
            upright = image if transpose is None else image.transpose(transpose)
            if factor == 1:
                return upright, None
            return upright, size[::-1] if transpose in SWAPPING else size
    except UnidentifiedImageError as error:
        raise (unread_tiff(data) if data[:4] in STARTS else UnreadableImage(_not_an_image(data))) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"more than the {MAX_PIXELS} pixels that one image may have{MAKE_SMALLER}") from error


def _png(data: bytes, opened: Image.Image) -> Image.Image:
    require_whole_png(data, opened)
    image = _shown(opened, "PNG", deep_gray_with_alpha(data))
    require_visible_png(data, image)
    return image


def _shown(opened: Image.Image, kind: str, deep: Image.Image | None = None) -> Image.Image:
    """The picture in a canonical mode; `deep` if it was decoded without Pillow."""
    image = _canonical(opened, kind) if deep is None else deep
    _require_visible(opened, image, kind)
    return image


def describe_failure(error: Exception) -> str:
    """A reason for a decoder's exception, without its own text, which may quote the file."""
    text = str(error)
    if isinstance(error, ImportError):
        return "no installed decoder reads its compression: pip install --upgrade imagecodecs, or save it as PNG"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    if "Decompressed data too large" in text or "Too much memory used in text" in text:
        return "text or a color profile in it unpacks to more than a megabyte: save it again without metadata"
    if _DAMAGED.search(text):
        return f"{DAMAGED}: {FROM_SOURCE}"
    return "damaged, or of a kind that medalign does not support: if a viewer shows it, save it from there as PNG"


def to_8_bits(image: Image.Image) -> Image.Image:
    """Convert a canonical image to 8-bit gray (L) or RGB; 16-bit gray is scaled linearly from its full 16-bit range."""
    if image.mode != "I;16":
        return image
    values = np.asarray(image)
    levels = (values // 257).astype(np.uint8)
    require_contrast(
        values,
        levels,
        "16-bit gray",
        "it differs by less than one of 256 levels; stretch its contrast and save it again",
    )
    return Image.fromarray(levels)


def _require_one_frame(opened: Image.Image) -> None:
    # MPO is a camera's JPEG followed by previews; every viewer shows the first picture.
    if getattr(opened, "is_animated", False) and opened.format != "MPO":
        raise UnreadableImage(
            f"{opened.format} with several frames or pages: export the one you mean as an image of its own"
        )


def _require_few_digits(data: bytes) -> None:
    """Reject large PNM files in decimal digits, which would take very long to parse."""
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > _MOST_PLAIN_BYTES:
        raise UnreadableImage(f"PNM in decimal digits, {len(data)} bytes: save it as PNG")


def _orientation(opened: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Unlike Pillow, viewers ignore the one in XMP."""
    if opened.format == "TIFF":  # already applied by Pillow
        return 1
    block = opened.info.get("exif")
    profile = opened.info.get("Raw profile type exif")
    if block is None and isinstance(profile, str):  # a PNG text chunk of ImageMagick
        block = bytes.fromhex("".join(profile.split("\n")[3:]))
    exif = Image.Exif()
    try:
        exif.load(block or b"")
        return int(exif.get(274, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return 1


def _canonical(image: Image.Image, kind: str) -> Image.Image:
    """Convert equivalent encodings (palette, bilevel, byte order, 16 bits in 32) to one mode each."""
    mode = image.mode
    if mode in ("L", "RGB"):
        return image.copy()
    if mode in ("1", "LA"):
        return image.convert("L")
    if mode.startswith("I;16") or (mode == "I" and kind == "PPM"):
        return gray16(np.asarray(image).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(stretched(np.asarray(image)))
    if mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise UnreadableImage(f"{kind} in color mode {mode}: save it as RGB")


def _require_visible(stored: Image.Image, shown: Image.Image, kind: str) -> None:
    """Reject a picture that is drawn only in its transparency, or whose palette has one color."""
    if stored.mode in ("LA", "RGBA", "P", "PA"):
        why = "it is drawn in its transparency, or its palette has one color; flatten it and save it as PNG"
        require_contrast(np.asarray(stored), np.asarray(shown), kind, why)


def _not_an_image(data: bytes) -> str:
    for pattern, words in _FOREIGN:
        if re.match(pattern, data[:512], re.IGNORECASE | re.DOTALL):
            return f"not an image: {words}"
    if looks_like_raster(data):
        return (
            "an image that is damaged, or of a kind that medalign does not support: if a viewer shows it, save it from "
            "there as PNG"
        )
    return f"not an image in a known format ({len(data)} bytes)"
