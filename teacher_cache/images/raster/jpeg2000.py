"""JPEG 2000: parsing code stream headers, and decoding streams that Pillow misreads (ISO/IEC 15444-1, Annex A)."""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..contrast import FEW_LEVELS, gray16, require_contrast
from ..image_errors import DAMAGED, FROM_SOURCE, UnreadableImage, require_size

_SIZ = re.compile(rb"\xff\x4f\xff\x51....(....)(....)(....)(....).{16}(..)", re.DOTALL)
"""Layout of SIZ: right and lower edge, left and upper edge, tiles, number of components."""

_START = b"\xff\x4f\xff\x51"
_MOST_HEADER = 65_536
_MOST_PADDING = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Siz:
    """The header of a code stream."""

    width: int
    height: int
    components: int
    precision: int
    """Bits per sample of the deepest component."""
    signed: bool
    """Whether samples of the first component are signed."""
    equal: bool
    """Whether all components have the same precision, sign and size."""
    palette: bool
    """Whether samples are indices into the palette of a JP2 file."""


def siz_of(data: bytes) -> Siz | None:
    """The header of a code stream, bare or in a JP2 file; `None` if there is none."""
    stream = _code_stream(data) if data[4:8] == b"jP  " else data
    match = _SIZ.search(stream[:_MOST_HEADER])
    if match is None:
        return None
    right, lower, left, upper, components = (int.from_bytes(group, "big") for group in match.groups())
    kinds = stream[match.end() : match.end() + 3 * components]
    if not components or len(kinds) < 3 * components:
        return None
    return Siz(
        width=right - left,
        height=lower - upper,
        components=components,
        precision=max(kind & 0x7F for kind in kinds[::3]) + 1,
        signed=bool(kinds[0] & 0x80),
        equal=kinds == kinds[:3] * components,
        palette=b"pclr" in data[: len(data) - len(stream)],
    )


def require_end(data: bytes) -> None:
    """Check that a code stream ends with its end marker; OpenJPEG would fill in missing coefficients with zeros.

    Raises:
        UnreadableImage: it does not.
    """
    if b"\xff\xd9" not in _code_stream(data)[-_MOST_PADDING:]:
        raise UnreadableImage(f"{DAMAGED}: its JPEG 2000 code stream has no end; {FROM_SOURCE}")


def _code_stream(data: bytes) -> bytes:
    """The content of the first `jp2c` box of a JP2 file, which other boxes may follow, or a bare code stream."""
    position = 0
    while data[:4] != _START and position + 8 <= len(data):
        length, header = int.from_bytes(data[position : position + 4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        end = position + length if length >= header else len(data)
        if data[position + 4 : position + 8] == b"jp2c":
            return data[position + header : end]
        position = end
    return data


def is_misread(siz: Siz) -> bool:
    """Whether Pillow would change values.

    It truncates color of more than 8 bits, and 9-bit gray in JP2, to 8 bits, and renders white of fewer than 8 bits as
    gray.
    """
    if siz.precision < 8:
        return siz.equal and not siz.palette
    return siz.precision == 9 or siz.precision > (16 if siz.components == 1 else 8)


def decode_jpeg2000(data: bytes, siz: Siz) -> Image.Image:
    """Decode gray or RGB of up to 16 bits with OpenJPEG: mode I;16, or RGB of each sample's upper 8 bits; alpha is
    dropped.

    Samples of fewer than 8 bits are scaled to 8 bits: mode L or RGB.

    Raises:
        UnreadableImage: it has another precision, or components that differ.
    """
    import imagecodecs

    if not siz.equal or siz.precision > 16 or siz.components > 4:
        raise UnreadableImage(
            f"JPEG 2000 of {siz.components} components with {siz.precision} bits: save it as PNG of 8 or 16 bits"
        )
    require_size(siz.width, siz.height)
    values = np.asarray(imagecodecs.jpeg2k_decode(data)).astype(np.int32)
    values = values.reshape(siz.height, siz.width, siz.components) + (siz.signed << siz.precision - 1)
    brightest = (1 << siz.precision) - 1
    values = np.clip(values, 0, brightest)
    if siz.precision < 8:
        levels = (values * 255 // brightest).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(levels[..., :3] if siz.components > 2 else levels[..., 0]))
    words = values.astype(np.uint16) << (16 - siz.precision)
    if siz.components < 3:
        return gray16(words[..., 0])
    colors = np.ascontiguousarray((words[..., :3] >> 8).astype(np.uint8))
    require_contrast(values[..., :3], colors, f"{siz.precision}-bit JPEG 2000", FEW_LEVELS)
    return Image.fromarray(colors)
