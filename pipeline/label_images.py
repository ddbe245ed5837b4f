"""Label images: masks whose pixel values are the numbers of what lies there (docs/manifests.md)."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError

PixelValues = np.ndarray[tuple[int, int], np.dtype[np.int64]]

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16")
_COLOUR_CHANNELS = {"RGB": 3, "RGBA": 3, "LA": 1}
"""Channels that must be equal; SLAKE's masks come as grey in three channels."""


def read_label_image(path: Path, width: int, height: int) -> PixelValues:
    """Pixel values of a mask file, [height, width]; of a palette image the palette's numbers.

    Raises:
        InputError: it is missing, unreadable, coloured, or of another size than its image.
    """
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
            values = np.array(image).astype(np.int64)
    except FileNotFoundError as error:
        raise InputError(f"there is no mask {path}; if the data moved, --root says where to") from error
    except (OSError, ValueError) as error:
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
