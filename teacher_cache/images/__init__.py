"""Images as they come from a hospital's disks: safe reading, identity (hashes), one canonical upright 8-bit form.

Teacher and student decode through this package, so both see the same pixels. docs/images.md says what is read, how,
and what is refused.
"""

from .decoding import DecodedImage, decode_image, read_image
from .dicom import HEAD_BYTES, looks_like_dicom
from .expected import CHANGED, ChangedImage, describe_change, read_expected_image
from .identity import image_hash, pixel_hash
from .in_memory import ImageLike, decode_given
from .problems import UnreadableImage
from .raster import looks_like_raster
from .reading import MAX_BYTES, read_head, read_image_bytes

__all__ = [
    "CHANGED",
    "HEAD_BYTES",
    "MAX_BYTES",
    "ChangedImage",
    "DecodedImage",
    "ImageLike",
    "UnreadableImage",
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
