"""Decoding what a hospital's web tools, scanners and cameras write: JPEG, PNG, TIFF, BMP, GIF, WebP, JPEG 2000, PNM."""

import io
import re

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .grey import stretched
from .problems import MAX_PIXELS, UnreadableImage, require_size

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
"""Nothing else is tried: among Pillow's other formats is one that starts a PostScript interpreter."""

_MOST_SCAN_PIXELS = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG. A progressive one has some ten scans; a crafted one thousands, each as slow as all."""

_MOST_PLAIN_BYTES = 32 * 1024**2
"""Of a PNM in decimal digits, which Pillow reads in Python at some megabytes a second."""

_FOREIGN = (
    (rb"\s*(<!doctype html|<html)", "an HTML page, perhaps of a failed download"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file itself"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"....ftyp(heic|heix|mif1|avif)", "HEIF or AVIF; save it as PNG"),
)

_DAMAGED = re.compile(
    r"truncated|unrecognized data stream|broken data stream|not enough image data|could not create decoder object"
    r"|cannot load this image",
    re.IGNORECASE,
)
"""Pillow's messages about image data that end early or are not what they should be."""


def decode_raster(data: bytes) -> Image.Image:
    """Decode completely, turn upright (EXIF), and bring to mode L, RGB or I;16.

    16-bit grey stays I;16. Alpha is dropped, as the students' own processors do. Grey of 32 bits or in floating
    point has no known range: it is stretched between its smallest and its largest finite value.

    Raises:
        UnreadableImage: not an image, truncated, animated, several pages, or too large to be decoded safely.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _require_one_frame(opened)
            require_size(opened.width, opened.height)
            _require_decodable(opened, data)
            opened.load()
            bits = _bits(opened)
            ImageOps.exif_transpose(opened, in_place=True)
            return _canonical(opened, bits)
    except UnidentifiedImageError as error:
        raise UnreadableImage(_not_an_image(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"more than the {MAX_PIXELS} pixels that one image may have") from error


def describe_failure(error: Exception) -> str:
    """What a decoder's exception means, in our words: its own may quote the file."""
    if _DAMAGED.search(str(error)):
        return "truncated or damaged image data"
    return f"cannot be decoded ({type(error).__name__})"


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a canonical image; 16-bit grey is scaled linearly from its container's full range."""
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image.convert("RGB")


def require_scans(data: bytes, width: int, height: int) -> None:
    """Hold that a JPEG can be decoded in bounded time.

    Raises:
        UnreadableImage: far more scans than any progressive image has.
    """
    scans = data.count(b"\xff\xda")
    if scans > 1 and scans * width * height > _MOST_SCAN_PIXELS:
        raise UnreadableImage(f"JPEG of {width} x {height} pixels in {scans} scans")


def _require_one_frame(opened: Image.Image) -> None:
    # MPO is a camera's JPEG with previews behind it: the first picture is the one every viewer shows.
    if getattr(opened, "is_animated", False) and opened.format != "MPO":
        raise UnreadableImage(
            f"{opened.format} with several frames or pages: export the one you mean as an image of its own"
        )


def _require_decodable(opened: Image.Image, data: bytes) -> None:
    """Refuse what is small enough and yet made to take for ever."""
    if opened.format in ("JPEG", "MPO"):
        require_scans(data, opened.width, opened.height)
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > _MOST_PLAIN_BYTES:
        raise UnreadableImage(f"PNM in decimal digits, {len(data)} bytes: save it as PNG")


def _bits(opened: Image.Image) -> int:
    """Bits of a grey sample: 12-bit TIFF comes from Pillow as I;16 with its values unscaled."""
    return int(opened.tag_v2.get(258, (16,))[0]) if opened.format == "TIFF" else 16  # type: ignore[attr-defined]


def _canonical(image: Image.Image, bits: int) -> Image.Image:
    """Bring equivalent encodings (palette, bilevel, byte order, 32-bit holding 16) to one mode each."""
    mode = image.mode
    if mode in ("L", "RGB"):
        return image.copy()
    if mode in ("1", "LA"):
        return image.convert("L")
    if mode.startswith("I;16"):
        return _grey16(np.asarray(image).astype(np.uint16) << (16 - bits))
    if mode == "I" and image.format == "PPM":
        return _grey16(np.asarray(image).astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(stretched(np.asarray(image)))
    if mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return image.convert("RGB")
    raise UnreadableImage(f"{image.format} in colour mode {mode}: save it as RGB")


def _grey16(values: np.ndarray) -> Image.Image:
    return Image.frombuffer("I;16", values.shape[::-1], values.tobytes(), "raw", "I;16", 0, 1)


def _not_an_image(data: bytes) -> str:
    for pattern, words in _FOREIGN:
        if re.match(pattern, data[:512], re.IGNORECASE | re.DOTALL):
            return f"not an image: {words}"
    return f"not an image in a known format ({len(data)} bytes)"
