"""Decoding images passed to the Python API: a path, a Pillow image or a NumPy array."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import InputError
from .canonical import DecodedImage, read_image
from .identity import pixel_hash
from .image_errors import UnreadableImage, require_size
from .raster.raster_decoding import decode_opened, describe_failure, to_8_bits
from .unicode_forms import as_stored

ImageLike = str | Path | Image.Image | NDArray[Any]
"""A path to a file of any supported format, a Pillow image, or uint8 pixels `[height, width]` (gray) or
`[height, width, 3]` (RGB)."""


def decode_given(image: ImageLike) -> DecodedImage:
    """Decode a file, or rotate a Pillow image upright (EXIF) and convert it to 8 bits.

    A path is the safest choice, because it also supports DICOM and formats that Pillow misreads (docs/images.md).

    Raises:
        InputError: the file or the image cannot be read; the message gives the path.
        UnreadableImage: an array has the wrong shape or dtype, or an image is too large to process safely.
    """
    if isinstance(image, str | Path):
        try:
            return read_image(as_stored(Path(image)))
        except UnreadableImage as error:
            raise InputError(f"cannot read {image}: {error}") from error
    if isinstance(image, np.ndarray):
        image = _picture(image)
    try:
        decoded = decode_opened(image)
        shown = to_8_bits(decoded.image)
    except UnreadableImage:
        raise
    except Exception as error:  # an image opened from a file is decoded only now, and decoders raise any exception
        raise UnreadableImage(describe_failure(error)) from error
    return DecodedImage(shown=shown, pixel_hash=pixel_hash(decoded.image), narrow=decoded.narrow)


def _picture(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UnreadableImage(
            f"an array of {pixels.dtype} with shape {list(pixels.shape)}: pass uint8 with shape [height, width] or "
            "[height, width, 3]"
        )
    require_size(pixels.shape[1], pixels.shape[0])
    return Image.fromarray(np.ascontiguousarray(pixels))
