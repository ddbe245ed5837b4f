"""What a JPEG's markers say of it (ITU-T T.81 Annex B), and decoding of what Pillow does not read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .contrast import grey16
from .problems import DAMAGED, FROM_SOURCE, MAX_PIXELS, UnreadableImage, require_size

DAMAGED_JPEG = f"{DAMAGED}: the JPEG has less or more than its picture needs; {FROM_SOURCE}"

_MOST_SCAN_PIXELS = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG. A progressive one has some ten scans; a crafted one thousands, each as slow as all."""

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Markers of frame headers; 0xF7 is JPEG-LS's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegHead:
    """A JPEG's frame header, and the segments that tell its colors."""

    frame: int
    """Marker of the frame header: 0xC0 baseline, 0xC2 progressive, 0xC3 lossless, 0xF7 JPEG-LS."""
    precision: int
    """Bits of a sample."""
    width: int
    height: int
    sampling: tuple[int, ...]
    """Of each component: horizontal and vertical factor, as 0x22."""
    transform: int | None
    """Adobe's: 0 RGB or CMYK, 1 YCbCr, 2 YCCK; `None` without its segment."""

    @property
    def subsampled(self) -> bool:
        """Whether components differ in size: RGB's do not."""
        return len(set(self.sampling)) > 1


def jpeg_head(data: bytes) -> JpegHead | None:
    """The header of a JPEG or JPEG-LS stream; `None` where there is none."""
    transform = None
    for marker, body in _segments(data):
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            transform = body[11]
        if marker in _FRAMES and len(body) >= 6:
            components = min(body[5], (len(body) - 6) // 3)
            return JpegHead(
                frame=marker,
                precision=body[0],
                height=int.from_bytes(body[1:3], "big"),
                width=int.from_bytes(body[3:5], "big"),
                sampling=tuple(body[7 + 3 * number] for number in range(components)),
                transform=transform,
            )
    return None


def require_scans(data: bytes, width: int, height: int) -> None:
    """Check that a JPEG can be decoded in bounded time.

    Raises:
        UnreadableImage: far more scans than any progressive image has.
    """
    scans = data.count(b"\xff\xda")
    if scans > 1 and scans * width * height > _MOST_SCAN_PIXELS:
        raise UnreadableImage(f"JPEG of {width} x {height} pixels in {scans} scans")


def decode_deep_jpeg(data: bytes, head: JpegHead) -> Image.Image | None:
    """Grey of a JPEG that Pillow does not read: lossless, JPEG-LS, or of more than 8 bits; `None` where Pillow may.

    Mode L for 8 bits, else I;16 with the samples shifted to the top of the word.

    Raises:
        UnreadableImage: of more than one component.
    """
    if head.precision <= 8 and head.frame != 0xF7:
        return None
    import imagecodecs

    require_size(head.width, head.height)
    if len(head.sampling) != 1:
        raise UnreadableImage(f"JPEG of {len(head.sampling)} components of {head.precision} bits: save it as PNG")
    if b"\xff\xd9" not in data:
        raise UnreadableImage(DAMAGED_JPEG)
    require_scans(data, head.width, head.height)
    decode = imagecodecs.jpegls_decode if head.frame == 0xF7 else imagecodecs.jpeg_decode
    values = np.asarray(decode(data)).reshape(head.height, head.width)
    if head.precision <= 8:
        return Image.fromarray(values.astype(np.uint8))
    return grey16(values.astype(np.uint16) << (16 - head.precision))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the first scan."""
    if data[:2] != b"\xff\xd8":
        return
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes before a marker
            position += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + max(2, length)
