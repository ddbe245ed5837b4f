"""What a JPEG's markers say of it (ITU-T T.81 Annex B), and whether all its pixels are there."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .contrast import grey16
from .problems import MAX_PIXELS, UnreadableImage, require_size

DAMAGED_JPEG = "truncated or damaged JPEG: its image data do not fit its picture; get the file again from its source"

_MOST_SCAN_PIXELS = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG. A progressive one has some ten scans; a crafted one thousands, each as slow as all."""

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Markers of frame headers; 0xF7 is JPEG-LS's."""

_HUFFMAN = (0xC0, 0xC1, 0xC2)
"""Baseline, extended, progressive."""

_RUN = re.compile(rb"([\0-\xfe])\1{31}", re.DOTALL)
"""A byte that is there 32 times: a hole in a file, or a large flat area."""

_FILLERS = (b"\x55" * 64, b"\xb6" * 64)
"""Two entropy-coded data that decode to different pictures, if they are decoded at all."""

_FEW_PIXELS = 256
"""Of one block of 16 x 16: encoders exist that drop the last byte."""


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


def require_whole_jpeg(data: bytes, decoded: Image.Image) -> None:
    """Check that a JPEG's entropy-coded data are as long as its picture needs; decoders fill in what is missing.

    Most files are looked at without decoding them again. Where a sign of damage is seen (no end marker, a run of one
    byte, a corner of the grey that stands for no data, restart markers), the scans are lengthened with two different
    fillers and decoded: a whole picture does not change. Then the ends of suspicious scans are replaced: a whole
    picture does. Other damage, such as flipped bits, is not seen.

    Raises:
        UnreadableImage: data are missing, or there are more than the picture needs.
    """
    head = jpeg_head(data)
    if head is None or head.frame not in _HUFFMAN:
        return
    parts = _entropy_parts(data)
    if head.frame == 0xC2 and not _all_coefficients(data):
        raise UnreadableImage(DAMAGED_JPEG)
    runs = [part for part in parts if _RUN.search(data, *part)]
    restarts = len(parts) > data.count(b"\xff\xda")
    ended = bool(parts) and data.find(b"\xff\xd9", parts[-1][1]) >= 0
    if not runs and ended and not restarts and not _grey_corner(decoded):
        return
    first, second = (_decoded(_lengthened(data, parts, filler)) for filler in _FILLERS)
    if first is None or second is None or _differ(first, second):
        raise UnreadableImage(DAMAGED_JPEG)
    for part in runs[:20]:
        if not any(_differ(first, _decoded(_with_end(data, part, filler)), 0) for filler in _FILLERS):
            raise UnreadableImage(DAMAGED_JPEG)


def decode_deep_jpeg(data: bytes, head: JpegHead) -> Image.Image | None:
    """Grey of a JPEG that Pillow does not read: lossless, JPEG-LS, or of more than 8 bits; `None` where Pillow may.

    Mode L for 8 bits, else I;16 with the samples shifted to the top of the word.

    Raises:
        UnreadableImage: of more than one component.
    """
    import imagecodecs

    if head.precision <= 8 and head.frame != 0xF7:
        return None
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


def _entropy_parts(data: bytes) -> list[tuple[int, int]]:
    """Where each run of entropy-coded data begins and ends, between scan headers, restart markers and other markers."""
    parts = []
    start = _after_header(data, data.find(b"\xff\xda"))
    while 0 < start < len(data):
        marker = _MARKER.search(data, start)
        end = marker.start() if marker else len(data)
        parts.append((start, end))
        if marker is None or marker[0][-1] == 0xD9:
            break
        if 0xD0 <= marker[0][-1] <= 0xD7:
            start = marker.end()
        else:
            start = _after_header(data, data.find(b"\xff\xda", end))
    return parts


_MARKER = re.compile(rb"\xff+[^\0\xff]", re.DOTALL)


def _after_header(data: bytes, position: int) -> int:
    """Where a segment ends; -1 where there is none."""
    return -1 if position < 0 else position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _all_coefficients(data: bytes) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient of each component to its last bit."""
    missing: dict[int, set[int]] = {}
    position = data.find(b"\xff\xda")
    while position >= 0:
        header = data[position + 4 : _after_header(data, position)]
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return False
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            left = missing.setdefault(component, set(range(64)))
            if bits & 15 == 0:
                left -= set(range(first, last + 1))
        position = data.find(b"\xff\xda", position + 2)
    return not any(missing.values())


def _grey_corner(decoded: Image.Image) -> bool:
    """Whether the last block is the even grey that decoders show where data are missing."""
    corner = np.asarray(decoded)[-4:, -4:]
    return bool((corner == 128).all())


def _lengthened(data: bytes, parts: list[tuple[int, int]], filler: bytes) -> bytes:
    """The file with a filler at the end of each part."""
    pieces, position = [], 0
    for _, end in parts:
        pieces += [data[position:end], filler]
        position = end
    return b"".join([*pieces, data[position:] or b"\xff\xd9"])


def _with_end(data: bytes, part: tuple[int, int], filler: bytes) -> bytes:
    """The file with the end of one part replaced."""
    start, end = part
    length = min(len(filler), (end - start) // 2)
    return data[: end - length] + filler[:length] + (data[end:] or b"\xff\xd9")


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError):
        return None


def _differ(first: np.ndarray, second: np.ndarray | None, few: int = _FEW_PIXELS) -> bool:
    """Whether two decoded pictures differ in more than `few` pixels."""
    if second is None or first.shape != second.shape:
        return True
    return int((first != second).reshape(*first.shape[:2], -1).any(axis=2).sum()) > min(few, first[..., :1].size // 4)
