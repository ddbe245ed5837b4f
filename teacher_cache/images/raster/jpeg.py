"""Parsing a JPEG's markers (ITU-T T.81 Annex B), and decoding JPEGs that Pillow does not support."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..contrast import gray16
from ..image_errors import DAMAGED, FROM_SOURCE, MAX_PIXELS, UnreadableImage, require_size

DAMAGED_JPEG = f"{DAMAGED}: the JPEG has too little or too much data for its size; {FROM_SOURCE}"

_MOST_SCAN_PIXELS = 20 * MAX_PIXELS
"""Maximum pixels times scans of a JPEG. A progressive one has about ten scans, a malicious one thousands, each as slow
as a whole picture."""

_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)
"""Markers of frame headers; 0xF7 is JPEG-LS."""

SCAN, RESTARTS, RESTART_INTERVAL = 0xDA, range(0xD0, 0xD8), 0xDD
_START, _END = 0xD8, 0xD9
_ALONE = (*range(0x01, 0xC0), *RESTARTS)
"""Markers without a segment: restarts, TEM and reserved ones, which occur in JPEG-LS data."""

_BLOCK = 1 << 18
"""Bytes searched for markers at a time."""


class Segment(NamedTuple):
    """Positions of a marker and its segment in a file."""

    marker: int
    start: int
    """Position of the marker, including fill bytes before it."""
    body: int
    """Position after the length field of the segment."""
    end: int
    """Position after the segment; entropy-coded data follow a scan header or a restart marker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegSurvey:
    """Positions of the entropy-coded data of a file's first image, from one pass over its markers."""

    scans: int
    parts: int
    """Number of runs of entropy-coded data between scan headers, restart markers and other markers."""
    last_part: tuple[int, int]
    """Start and end of the last run."""
    ended: bool
    """Whether there is an end marker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegHead:
    """A JPEG's frame header, and the segments that define its color space."""

    frame: int
    """Marker of the frame header: 0xC0 baseline, 0xC2 progressive, 0xC3 lossless, 0xF7 JPEG-LS."""
    precision: int
    """Bits of a sample."""
    width: int
    height: int
    sampling: tuple[int, ...]
    """Horizontal and vertical sampling factors of each component, such as 0x22."""
    transform: int | None
    """Adobe's color transform: 0 RGB or CMYK, 1 YCbCr, 2 YCCK; `None` without an Adobe segment."""

    @property
    def subsampled(self) -> bool:
        """Whether components differ in size, which those of RGB do not."""
        return len(set(self.sampling)) > 1


def jpeg_head(data: bytes) -> JpegHead | None:
    """The header of a JPEG or JPEG-LS stream, or `None`."""
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
    """Survey the scans and entropy-coded data of a file's first image."""
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
        UnreadableImage: it has far more scans than any progressive image.
    """
    if scans > 1 and scans * width * height > _MOST_SCAN_PIXELS:
        raise UnreadableImage(f"JPEG of {width} x {height} pixels in {scans} scans")


def decode_deep_jpeg(data: bytes, head: JpegHead) -> Image.Image | None:
    """Decode a gray JPEG that Pillow does not support: lossless, JPEG-LS, or more than 8 bits; `None` for all others.

    The result has mode L for 8 bits, or else I;16 with the samples shifted to the top of the word.

    Raises:
        UnreadableImage: it has more than one component.
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
    return gray16(values.astype(np.uint16) << (16 - head.precision))


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a file's first image, up to its end marker or the start of another image.

    Thumbnails inside its segments, and previews and films after its end, are separate images.
    """
    position = 2 if data[:2] == b"\xff\xd8" else len(data)
    for code in _codes(data, position):
        if code < position:
            continue
        start = code
        while start > position and data[start - 1] == 0xFF:
            start -= 1
        marker, body, position = data[code + 1], code + 2, code + 2
        if marker not in (*_ALONE, _START, _END):
            body += 2
            position = max(body, position + int.from_bytes(data[position:body], "big"))
        yield Segment(marker, start, body, position)
        if marker in (_START, _END):
            return


def _codes(data: bytes, start: int) -> Iterator[int]:
    """Positions after `start` of each 0xFF that precedes a byte other than 0 (stuffing) and 0xFF (fill)."""
    for begin in range(start, len(data) - 1, _BLOCK):
        block = np.frombuffer(data, np.uint8, min(_BLOCK + 1, len(data) - begin), begin)
        positions = np.flatnonzero(block[:-1] == 0xFF)
        following = block[positions + 1]
        yield from (positions[(following != 0) & (following != 0xFF)] + begin).tolist()


def first_image(data: bytes) -> bytes:
    """A JPEG's bytes up to the end of its first image."""
    for segment in segments(data):
        if segment.marker in (_START, _END):
            return data[: segment.start if segment.marker == _START else segment.end]
    return data
