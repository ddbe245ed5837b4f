"""Label images: masks whose pixel values are the numbers of what lies there (docs/manifests.md)."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ...teacher_cache.images import UnreadableImage, describe_change, image_hash, read_image_bytes
from .image_hashing import is_absent

PixelValues = np.ndarray[tuple[int, int], np.dtype[np.int64]]

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16")
_COLOUR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}
"""Channels that must be equal; SLAKE's masks come as grey in three channels."""


def read_label_image(path: Path, width: int, height: int, mask_hash: str | None = None) -> PixelValues:
    """Pixel values of a mask file, [height, width]; of a palette image the palette's numbers.

    Its bytes are read once: those that are hashed are those that are decoded. `mask_hash` is `None` where the manifest
    has none.

    Raises:
        InputError: it is missing, unreadable, coloured, of another size than its image, or of another hash.
    """
    if is_absent(path):
        raise InputError(f"there is no mask {path}; if the data moved, --root says where to")
    try:
        data = read_image_bytes(path)
        if mask_hash is not None and image_hash(data) != mask_hash:
            raise InputError(describe_change(path, mask_hash, image_hash(data), what="mask"))
        with Image.open(io.BytesIO(data)) as image:
            mode, size = image.mode, image.size
            values = np.array(image).astype(np.int64)
    except (OSError, ValueError, UnreadableImage) as error:
        raise InputError(f"{path} is not a readable mask: {error}") from error
    if mode not in (*_ONE_CHANNEL, *_COLOUR_CHANNELS):
        raise InputError(f"the mask {path} has mode {mode}, none of {', '.join((*_ONE_CHANNEL, *_COLOUR_CHANNELS))}")
    if mode in _COLOUR_CHANNELS:
        colours = values[..., : _COLOUR_CHANNELS[mode]]
        if (colours != colours[..., :1]).any():
            raise InputError(f"the mask {path} is coloured ({mode}); a mask has one channel, or equal ones")
        values = colours[..., 0]
    if size != (width, height):
        raise InputError(f"the mask {path} is {size[0]}x{size[1]} pixels, its image {width}x{height}")
    return values
