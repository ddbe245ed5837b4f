"""What a JPEG's markers say of it (ITU-T T.81 Annex B), and decoding of what Pillow does not read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..contrast import grey16
from ..image_errors import DAMAGED, FROM_SOURCE, MAX_PIXELS, UnreadableImage, require_size

DAMAGED_JPEG = f"{DAMAGED}: the JPEG has less or more than its picture needs; {FROM_SOURCE}"

_MOST_SCAN_PIXELS = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG. A progressive one has some ten scans; a crafted one thousands, each as slow as all."""

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Markers of frame headers; 0xF7 is JPEG-LS's."""

SCAN, RESTARTS, RESTART_INTERVAL = 0xDA, range(0xD0, 0xD8), 0xDD
_START, _END = 0xD8, 0xD9
_ALONE = (*range(0x01, 0xC0), *RESTARTS)
"""Markers without a segment: restarts, TEM, and what the standard reserves, which data of JPEG-LS contain."""

_BLOCK = 1 << 18
"""Bytes that are searched for markers at a time."""


class Segment(NamedTuple):
    """A marker and its segment, as positions in a file."""

    marker: int
    start: int
    """Of the marker, with fill bytes before it."""
    body: int
    """Behind the length of the segment."""
    end: int
    """Behind the segment; entropy-coded data follow a scan header and a restart marker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegSurvey:
    """Where the entropy-coded data of a file's first image lie, in one pass over its markers."""

    scans: int
    parts: int
    """Runs of entropy-coded data between scan headers, restart markers and other markers."""
    last_part: tuple[int, int]
    """Begin and end of the last of them."""
    ended: bool
    """An end marker was found."""


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
    for segment in segments(data):
        marker, body = segment.marker, data[segment.body : segment.end]
        if marker == SCAN:
            return None
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


def survey_jpeg(data: bytes) -> JpegSurvey:
    """Count scans and runs of entropy-coded data of a file's first image."""
    scans = parts = 0
    last, begin = (0, 0), None
    ended = False
    for segment in segments(data):
        if begin is not None:
            parts, last = parts + 1, (begin, segment.start)
        inside = begin is not None and segment.marker in RESTARTS
        begin = segment.end if (inside or segment.marker == SCAN) and segment.end < len(data) else None
        scans += segment.marker == SCAN
        ended = segment.marker == _END
    if begin is not None:
        parts, last = parts + 1, (begin, len(data))
    return JpegSurvey(scans=scans, parts=parts, last_part=last, ended=ended)


def require_scans(scans: int, width: int, height: int) -> None:
    """Check that a JPEG can be decoded in bounded time.

    Raises:
        UnreadableImage: far more scans than any progressive image has.
    """
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
    survey = survey_jpeg(data)
    if not survey.ended:
        raise UnreadableImage(DAMAGED_JPEG)
    require_scans(survey.scans, head.width, head.height)
    decode = imagecodecs.jpegls_decode if head.frame == 0xF7 else imagecodecs.jpeg_decode
    values = np.asarray(decode(data)).reshape(head.height, head.width)
    if head.precision <= 8:
        return Image.fromarray(values.astype(np.uint8))
    return grey16(values.astype(np.uint16) << (16 - head.precision))


def segments(data: bytes) -> Iterator[Segment]:
    """Markers of a file's first image, up to its end marker or to the start of another image.

    Thumbnails within its segments, and previews and films behind its end, are images of their own.
    """
    position = 2 if data[:2] == b"\xff\xd8" else len(data)
    for place in _codes(data, position):
        if place < position:
            continue
        start = place
        while start > position and data[start - 1] == 0xFF:
            start -= 1
        marker, body, position = data[place + 1], place + 2, place + 2
        if marker not in (*_ALONE, _START, _END):
            body += 2
            position = max(body, position + int.from_bytes(data[position:body], "big"))
        yield Segment(marker, start, body, position)
        if marker in (_START, _END):
            return


def _codes(data: bytes, start: int) -> Iterator[int]:
    """Positions from `start` on of 0xFF in front of a byte that is neither 0 (stuffing) nor 0xFF (fill)."""
    for begin in range(start, len(data) - 1, _BLOCK):
        block = np.frombuffer(data, np.uint8, min(_BLOCK + 1, len(data) - begin), begin)
        found = np.flatnonzero(block[:-1] == 0xFF)
        following = block[found + 1]
        yield from (found[(following != 0) & (following != 0xFF)] + begin).tolist()


def first_image(data: bytes) -> bytes:
    """A JPEG without what follows its end."""
    for segment in segments(data):
        if segment.marker in (_START, _END):
            return data[: segment.start if segment.marker == _START else segment.end]
    return data
