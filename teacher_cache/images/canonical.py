"""Decoding a file's bytes to one canonical image; any decoder exception becomes a reason in one line."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .contrast import canonical
from .dicom.rendering import decode_dicom, looks_like_dicom
from .identity import pixel_hash
from .image_errors import UnreadableImage
from .raster.raster_decoding import Reduction, decode_raster, describe_failure, to_8_bits
from .safe_read import read_image_bytes

_DECODERS = r"(PIL|pydicom|tifffile|imagecodecs|pylibjpeg|libjpeg|openjpeg|rle|numpy|medalign\.teacher_cache\.images)\b"


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright 8-bit image and the hash of the pixels that it was decoded from."""

    shown: Image.Image
    """Mode L or RGB. A gray image keeps one channel, which is a third of the work."""
    pixel_hash: str
    """SHA-256 over mode, size and bytes of the upright decoded pixels; lossless re-saving does not change it."""
    narrow: bool = False
    """The values use less than an eighth of the pixels' range, so the picture shows little (docs/images.md)."""
    full_size: tuple[int, int] | None = None
    """Width and height in the file, if `shown` is smaller."""

    @property
    def rgb(self) -> Image.Image:
        return self.shown.convert("RGB")

    @property
    def width(self) -> int:
        return (self.full_size or self.shown.size)[0]

    @property
    def height(self) -> int:
        return (self.full_size or self.shown.size)[1]


@dataclass(frozen=True, slots=True)
class ReducedJpeg:
    """Permission to decode a JPEG at a reduced size."""

    reduction: Reduction
    pixel_hash: str
    """Hash of its pixels at full size, which are not decoded in this case."""


def decode_image(data: bytes, reduced: ReducedJpeg | None = None) -> DecodedImage:
    """Decode a file's bytes completely, rotate the image upright and convert it to 8 bits (docs/images.md).

    Raises:
        UnreadableImage: it is not an image, is truncated, animated or too large to decode safely, or a decoder rejects
            it for another reason.
    """
    if not data:
        raise UnreadableImage("an empty file (0 bytes)")
    _silence_decoders()
    dicom = looks_like_dicom(data)
    try:
        decoded = (
            canonical(decode_dicom(data))
            if dicom
            else decode_raster(data, None if reduced is None else reduced.reduction)
        )
        image = decoded.image
        return DecodedImage(
            shown=to_8_bits(image),
            pixel_hash=reduced.pixel_hash if reduced and decoded.size else pixel_hash(image),
            narrow=decoded.narrow,
            full_size=decoded.size,
        )
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise UnreadableImage(("DICOM: " if dicom else "") + describe_failure(error)) from error


def read_image(path: Path) -> DecodedImage:
    """Read and decode one image file.

    Raises:
        UnreadableImage: the file cannot be read or decoded.
    """
    return decode_image(read_image_bytes(path))


def _silence_decoders() -> None:
    """Ignore warnings and logs of decoders: a run over a million files must not print one for each unusual header.

    Some of them also quote the header. They are ignored permanently, because restoring warning filters is not
    thread-safe in Python.
    """
    for name in ("PIL", "pydicom", "tifffile"):
        logger = logging.getLogger(name)
        if logger.level <= logging.CRITICAL:  # setting a level clears the caches of all loggers
            logger.setLevel(logging.CRITICAL + 1)
    if not any(kept[0] == "ignore" and getattr(kept[3], "pattern", None) == _DECODERS for kept in warnings.filters):
        warnings.filterwarnings("ignore", module=_DECODERS)
