"""Images in hospital data: safe reading, hashes, and decoding to a canonical upright 8-bit form.

The teacher and the student decode with this package, so both see the same pixels. docs/images.md describes which files
are supported, how they are rendered, and which are rejected.
"""

from .canonical import DecodedImage, decode_image, read_image
from .dicom.rendering import HEAD_BYTES, looks_like_dicom
from .given_image import ImageLike, decode_given
from .identity import image_hash, pixel_hash
from .image_errors import UnreadableImage
from .raster.raster_decoding import looks_like_raster
from .safe_read import MAX_BYTES, read_head, read_image_bytes
from .unicode_forms import as_stored
from .verified_image import CHANGED, ChangedImage, describe_change, read_expected_image

__all__ = [
    "CHANGED",
    "HEAD_BYTES",
    "MAX_BYTES",
    "ChangedImage",
    "DecodedImage",
    "ImageLike",
    "UnreadableImage",
    "as_stored",
    "decode_given",
    "decode_image",
    "describe_change",
    "image_hash",
    "looks_like_dicom",
    "looks_like_raster",
    "pixel_hash",
    "read_expected_image",
    "read_head",
    "read_image",
    "read_image_bytes",
]
