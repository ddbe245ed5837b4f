"""Label images: masks whose pixel values are label numbers (docs/manifests.md)."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import InputError
from ...path_checks import is_absent
from ...plain_text import quoted_error
from ...teacher_cache.images import UnreadableImage, describe_change, image_hash, read_image_bytes

PixelValues = np.ndarray[tuple[int, int], np.dtype[np.int64]]

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16")
_COLOR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}
"""Modes whose channels must be equal; SLAKE's masks are gray in three channels."""


def read_label_image(path: Path, width: int, height: int, mask_hash: str | None = None) -> PixelValues:
    """Pixel values of a mask file, [height, width]; for a palette image the palette indices.

    The file is read once, so the hashed bytes are the decoded ones. `mask_hash` is `None` if the manifest has none.

    Raises:
        InputError: The mask is missing, unreadable or in color, or its size differs from the image's, or its hash from
            the manifest's.
    """
    if is_absent(path):
        raise InputError(f"mask {path} does not exist; if the data was moved, pass its new root with --root")
    try:
        data = read_image_bytes(path)
        if mask_hash is not None and image_hash(data) != mask_hash:
            raise InputError(describe_change(path, mask_hash, image_hash(data), what="mask"))
        with Image.open(io.BytesIO(data)) as image:
            mode, size = image.mode, image.size
            values = np.array(image).astype(np.int64)
    except UnidentifiedImageError as error:
        raise InputError(f"mask {path} is not an image in a format that Pillow reads") from error
    except (OSError, ValueError, UnreadableImage) as error:
        raise InputError(f"mask {path} cannot be read: {quoted_error(error)}") from error
    if mode not in (*_ONE_CHANNEL, *_COLOR_CHANNELS):
        raise InputError(f"mask {path} has mode {mode}; expected one of {', '.join((*_ONE_CHANNEL, *_COLOR_CHANNELS))}")
    if mode in _COLOR_CHANNELS:
        colors = values[..., : _COLOR_CHANNELS[mode]]
        if (colors != colors[..., :1]).any():
            raise InputError(f"mask {path} is in color ({mode}); a mask must have one channel, or equal channels")
        values = colors[..., 0]
    if size != (width, height):
        raise InputError(f"mask {path} has {size[0]}x{size[1]} pixels, but its image has {width}x{height}")
    return values
