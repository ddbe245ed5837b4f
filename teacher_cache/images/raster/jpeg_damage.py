"""Checking that a JPEG has exactly as much image data as its picture needs.

libjpeg decodes damaged files: it fills in missing data with gray, and ignores surplus data (a hole of zeros decodes to
extra blocks). It reports both only in a warning that Pillow does not pass on.

Most intact files are recognized while they are decoded: the decoder reads the last bytes of their only scan, and the
last block is not the gray of missing data. All others (small pictures, restart markers, progressive scans, a corner in
exactly that gray, and damaged files) are decoded again to test two properties of an intact file: data added after a
scan have no effect, and its last bytes have an effect.

Long runs of zeros in a scan prove nothing: 43 coefficients of -1 in a row are 129 zero bits with the luminance table of
T.81 Annex K (code 00 for run 0 and size 1, then a 0 for the sign), and four zero bits are a flat block of chroma.
"""

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..image_errors import UnreadableImage
from .jpeg import (
    DAMAGED_JPEG,
    RESTART_INTERVAL,
    RESTARTS,
    SCAN,
    JpegHead,
    JpegSurvey,
    first_image,
    jpeg_head,
    segments,
)

_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2

_PATTERNS = (0x55, 0xB6, 0x6D, 0xDB, 0x49, 0x92, 0x24, 0x88, 0x11, 0xC3, 0x9C)
"""Bytes used as fake image data; there are enough that one of them darkens white and another one brightens black."""

_ADDED = 4096
_ENDING = 4
"""Numbers of bytes added after a scan, and replaced at its end."""

_SMALL_PIXELS = 65_536
"""Width times height up to which a single decoding is not trusted: in a small picture, damage may well keep the number
of blocks, except for the last block or the 7 bytes that `JpegBytes.watch` cannot see."""

_RUN_WORDS = 4
"""Minimum number of 8-byte words of equal bytes in a row: a hole, or a large flat area."""

_MOST_HOLES = 20

_MISSING = (127, 128)
"""Sample values of a block without data; Pillow inverts those of CMYK."""

_Part = tuple[int, int]
"""Start and end of entropy-coded data between two markers."""


class JpegBytes(io.BytesIO):
    """A file that records whether a decoder has read the last bytes of its image data."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._boundary: int | None = None
        self.reached_end = False

    def watch(self, end: int) -> None:
        """From now on, limit reads so that none crosses the last byte before `end`.

        libjpeg reads 8 bytes at a time, so it may read this byte even if up to 7 bytes before it are surplus.
        """
        self._boundary = end - 1

    def read(self, size: int | None = -1, /) -> bytes:
        position = self.tell()
        if self._boundary is not None and position < self._boundary:
            rest = self._boundary - position
            size = rest if size is None or size < 0 else min(size, rest)
        data = super().read(size)
        if self._boundary is not None and self.tell() > self._boundary:
            self.reached_end = True
        return data


def load_whole_jpeg(data: bytes, opened: Image.Image, file: JpegBytes, survey: JpegSurvey, factor: int = 1) -> None:
    """Decode the picture that was opened from `file` and check that it has exactly the image data that it needs.

    With a `factor` of 2, 4 or 8, libjpeg decodes it at a half, a quarter or an eighth of its width and height.
    Damage that keeps the number of blocks, or changes the data by only a few bytes, is not detected.

    Raises:
        UnreadableImage: it has too little or too much data.
    """
    head = jpeg_head(data)
    if factor > 1:
        opened.draft(None, (opened.width // factor, opened.height // factor))
    if head is None or head.frame not in (*_BASELINE, _PROGRESSIVE):
        opened.load()
        return
    one_scan = head.frame in _BASELINE and survey.scans == survey.parts == 1
    if one_scan:
        file.watch(survey.last_part[1])
    opened.load()
    small = head.width * head.height <= _SMALL_PIXELS
    if one_scan and not small and file.reached_end and _ends_with_a_block(opened, head, factor):
        return
    if factor > 1:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as full:
            full.load()
            require_whole_jpeg(data, full, head)
    else:
        require_whole_jpeg(data, opened, head)


def _ends_with_a_block(decoded: Image.Image, head: JpegHead, factor: int) -> bool:
    """Whether the last block certainly had data; if it had none, the lower right pixel is gray.

    With subsampled chroma, that pixel is a mix of two chroma samples, which must be in the same block.
    """
    across, down = (max(factor >> 4 for factor in head.sampling), max(factor & 15 for factor in head.sampling))
    last = (head.width - 1) % (8 * across), (head.height - 1) % (8 * down)
    if head.subsampled and (last[0] < across * factor or last[1] < down * factor):
        return False
    pixel = decoded.getpixel((decoded.width - 1, decoded.height - 1))
    return any(sample not in _MISSING for sample in (pixel if isinstance(pixel, tuple) else (pixel,)))


def require_whole_jpeg(data: bytes, decoded: Image.Image, head: JpegHead) -> None:
    """Check by decoding again that a JPEG has exactly the image data that its picture needs.

    Raises:
        UnreadableImage: it has too little or too much data.
    """
    data = first_image(data)
    shown, parts = np.asarray(decoded), _entropy_parts(data)
    if head.frame == _PROGRESSIVE and not _all_coefficients(data):
        raise UnreadableImage(DAMAGED_JPEG)
    if len(parts) == 1:
        whole = _ends_with_its_data(data, parts[0], shown)
    else:
        whole = _has_all_restarts(data, head, parts) and _changed(data, parts, shown, 0, 0x55) == 0
        whole = whole and not any(_is_surplus(data, part, shown) for part in _holes(data, head, parts))
    if not whole:
        raise UnreadableImage(DAMAGED_JPEG)


def _ends_with_its_data(data: bytes, part: _Part, shown: NDArray[np.uint8]) -> bool:
    """For one scan: whether bytes added after it have no effect, and its last bytes have one."""
    if _changed(data, [part], shown, 0, 0x55):
        return False
    return _changed(data, [part], shown, _ENDING, 0x55) > 0 or not _is_surplus(data, part, shown)


def _is_surplus(data: bytes, part: _Part, shown: NDArray[np.uint8]) -> bool:
    """Whether the end of a scan has no effect, while its middle has one."""
    if any(_changed(data, [part], shown, _ENDING, pattern) for pattern in _PATTERNS):
        return False
    start, end = part
    thirds = [start + (end - start) * third // 6 for third in (1, 2, 3)]
    return all(_changed(data, [(start, position)], shown, 16, 0x55, keep=True) for position in thirds)


def _changed(
    data: bytes, parts: Iterable[_Part], shown: NDArray[np.uint8], ending: int, pattern: int, *, keep: bool = False
) -> int:
    """Number of samples that change if the last `ending` bytes of each part are replaced and, except in `keep`, bytes
    are added."""
    pieces, position = [], 0
    for start, end in parts:
        cut = max(start, end - ending)
        if ending and cut > start and data[cut - 1] == 0xFF:  # a stuffed byte; before another byte it would be a marker
            cut -= 1
        pieces += [data[position:cut], bytes(_other(byte, pattern) for byte in data[cut:end])]
        pieces.append(b"" if keep else bytes([pattern]) * _ADDED)
        position = end
    return _difference(b"".join([*pieces, data[position:], b"\xff\xd9"]), shown)


def _other(byte: int, pattern: int) -> int:
    return pattern if byte != pattern else pattern ^ 0x3C


def _difference(data: bytes, shown: NDArray[np.uint8]) -> int:
    """Number of samples in which a file differs from a picture; all of them if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            other = np.asarray(image)
    except (OSError, SyntaxError, ValueError):
        return shown.size
    return int(np.count_nonzero(other != shown)) if other.shape == shown.shape else shown.size


def _entropy_parts(data: bytes) -> list[_Part]:
    """All entropy-coded data, between scan headers, restart markers and other markers."""
    parts = []
    start = len(data)
    for segment in segments(data):
        if start < len(data):
            parts.append((start, segment.start))
        inside = start < len(data) and segment.marker in RESTARTS
        start = segment.end if inside or segment.marker == SCAN else len(data)
    return [*parts, (start, len(data))] if start < len(data) else parts


def _has_all_restarts(data: bytes, head: JpegHead, parts: list[_Part]) -> bool:
    """Whether a file with one scan has as many parts between restart markers as its header requires."""
    headers = [segment for segment in segments(data) if segment.marker in (SCAN, RESTART_INTERVAL)]
    definition = headers[-2].body if len(headers) > 1 and headers[-2].marker == RESTART_INTERVAL else -1
    scans = sum(segment.marker == SCAN for segment in headers)
    if not parts or definition < 0 or scans != 1 or head.frame == _PROGRESSIVE:
        return bool(parts)
    interval = int.from_bytes(data[definition : definition + 2], "big")
    wide, high = (
        (1, 1)
        if len(head.sampling) == 1
        else (max(factor >> 4 for factor in head.sampling), max(factor & 15 for factor in head.sampling))
    )
    blocks = -(-head.width // (8 * wide)) * -(-head.height // (8 * high)) if wide and high else 0
    return interval == 0 or len(parts) == -(-blocks // interval)


def _holes(data: bytes, head: JpegHead, parts: list[_Part]) -> list[_Part]:
    """Parts with a long run of one byte; in a progressive file only if every bit affects the picture."""
    holes = []
    for start, end in parts:
        words = np.frombuffer(data, np.uint8, (end - start) // 8 * 8, start).reshape(-1, 8)
        equal = (words == words[:, :1]).all(axis=1)
        runs = np.convolve(equal, np.ones(_RUN_WORDS), "valid") if len(equal) >= _RUN_WORDS else np.zeros(0)
        if (runs == _RUN_WORDS).any() and (head.frame != _PROGRESSIVE or _is_first_of_brightness(data, start)):
            holes.append((start, end))
    return holes[:_MOST_HOLES]


def _is_first_of_brightness(data: bytes, start: int) -> bool:
    """Whether a progressive scan, whose header ends at `start`, is the first scan of the DC coefficients."""
    return data[start - 3] == 0 and data[start - 1] >> 4 == 0


def _all_coefficients(data: bytes) -> bool:
    """Whether the scans of a progressive JPEG complete every coefficient of each component to the last bit."""
    missing: dict[int, set[int]] = {}
    for segment in segments(data):
        if segment.marker != SCAN:
            continue
        header = data[segment.body : segment.end]
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return False
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            left = missing.setdefault(component, set(range(64)))
            if bits & 15 == 0:
                left -= set(range(first, last + 1))
    return not any(missing.values())
