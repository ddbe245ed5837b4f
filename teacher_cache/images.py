"""Images as they come from disk: identity (hashes) and decoding to one canonical form.

Teacher and student decode through this module, so both see the same pixels.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError


class UnreadableImage(InputError):
    """The bytes are not an image that can be decoded completely; `reason` is one line without any path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright 8-bit RGB image and the identity of the pixels it was decoded from."""

    rgb: Image.Image
    pixel_hash: str
    """SHA-256 over mode, size and bytes of the upright decoded pixels; survives lossless re-saving."""

    @property
    def width(self) -> int:
        return self.rgb.width

    @property
    def height(self) -> int:
        return self.rgb.height


def image_hash(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hex: the join key between manifests, stores and labs."""
    return hashlib.sha256(data).hexdigest()


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 over `mode`, `width x height` and the raw bytes of an upright image, in hex."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def decode_image(data: bytes) -> DecodedImage:
    """Decode a file's bytes completely, turn it upright (EXIF) and convert it to 8-bit RGB.

    16-bit grey is scaled linearly from its container's full range. Alpha is dropped, as the students' own
    processors do.

    Raises:
        UnreadableImage: not an image, truncated, animated, or too large to be decoded safely.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                raise UnreadableImage(f"{opened.format} with {frames} frames: export the frame you mean as one image")
            upright = ImageOps.exif_transpose(opened)
            upright.load()
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image in a known format ({len(data)} bytes)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    upright = _canonical_mode(upright)
    return DecodedImage(rgb=_to_rgb(upright), pixel_hash=pixel_hash(upright))


def read_image(path: Path) -> DecodedImage:
    """Read and decode one image file.

    Raises:
        UnreadableImage: the file cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{type(error).__name__}: {error.strerror}") from error
    return decode_image(data)


def _canonical_mode(image: Image.Image) -> Image.Image:
    """Bring equivalent encodings (palette, bilevel, 32-bit holding 16) to one mode each."""
    if image.mode in ("L", "RGB", "I;16"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        return image.convert("I;16")
    return image.convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    return image.convert("RGB")
