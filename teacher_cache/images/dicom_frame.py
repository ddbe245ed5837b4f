"""The stored values of a DICOM file's one frame: uncompressed, or through whichever decoder is installed."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problems import UnreadableImage
from .raster import require_scans

_PLUGINS = ("pillow", "pylibjpeg", "gdcm", "pyjpegls")
"""In the order they are asked: the same on every machine, or lossy images would differ between labs."""

_RLE_PLUGINS = ("pydicom",)
"""Its own is fast enough; pylibjpeg-rle panics on runs that do not fit, which no `except Exception` catches."""

_MOST_FRAGMENTS = 100_000
_FRAGMENT = b"\xfe\xff\x00\xe0"

_PADDING = 64
"""Bytes that writers put behind a code stream's end marker, at most; the marker cannot occur within one."""

_JPEG_SIZE = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]..(.)(..)(..)", re.DOTALL)
"""A frame header (SOF; SOF55 of JPEG-LS): precision, height, width."""

_J2K_SIZE = re.compile(rb"\xff\x4f\xff\x51....(....)(....)(....)(....)", re.DOTALL)
"""SIZ of JPEG 2000: right and lower edge, left and upper edge."""


def decode_frame(dataset: Any, width: int, height: int) -> NDArray[Any]:
    """Stored values [height, width], or RGB [height, width, 3] (YBR converted, planes joined).

    Raises:
        UnreadableImage: truncated, in a compression nothing installed reads, or not of the size the header says.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import RLELossless

    samples = int(dataset.SamplesPerPixel)
    if samples not in (1, 3):
        raise UnreadableImage(f"DICOM with {samples} samples in a pixel")
    syntax = _transfer_syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(f"DICOM in a transfer syntax that is not read ({_name(syntax)})") from error
    if syntax.is_encapsulated:
        order = _RLE_PLUGINS if syntax == RLELossless else _PLUGINS
        plugins = [name for name in order if name in decoder.available_plugins]
        _require_complete_frame(dataset, width, height)
        pixels = _first_success(decoder, dataset, plugins, syntax)
    else:
        _require_complete_pixels(dataset)
        pixels = decoder.as_array(dataset, index=0, raw=False)[0]
    if pixels.shape != ((height, width) if samples == 1 else (height, width, 3)):
        raise UnreadableImage("DICOM whose pixel data are not of the size that its header says")
    return np.asarray(pixels)


def _transfer_syntax(dataset: Any) -> Any:
    """The file's own; where a file without its first part has none, what pydicom found by trying."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def _name(syntax: Any) -> str:
    from pydicom.uid import UID_dictionary

    return str(syntax.name) if str(syntax) in UID_dictionary else "a private one"


def _require_complete_pixels(dataset: Any) -> None:
    from pydicom.pixels.utils import get_expected_length

    expected, found = get_expected_length(dataset), len(dataset.PixelData)
    if found < expected:
        raise UnreadableImage(f"truncated: {found} of {expected} bytes of DICOM pixel data")


def _require_complete_frame(dataset: Any, width: int, height: int) -> None:
    """Hold that a compressed frame is whole and as large as the header says, before a decoder allocates for it."""
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    data = dataset.PixelData
    if data.count(_FRAGMENT) > _MOST_FRAGMENTS:
        raise UnreadableImage(f"DICOM with more than {_MOST_FRAGMENTS} fragments of pixel data")
    frame = get_frame(data, 0, number_of_frames=1)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        plain = width * height * int(dataset.SamplesPerPixel) * max(1, int(dataset.BitsAllocated) // 8)
        if len(frame) > 2 * plain + 65_536:  # the worst that run lengths can do to an image is to double it
            raise UnreadableImage("DICOM with more run lengths than pixels")
        return
    if b"\xff\xd9" not in frame[-_PADDING:]:
        raise UnreadableImage("truncated: the compressed DICOM pixel data have no end")
    if _coded_size(frame) != (width, height):
        raise UnreadableImage("DICOM whose pixel data are not of the size that its header says")
    if frame[:2] == b"\xff\xd8":
        require_scans(frame, width, height)


def _coded_size(frame: bytes) -> tuple[int, int]:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 code stream states; zeros where there is none."""

    def number(digits: bytes) -> int:
        return int.from_bytes(digits, "big")

    if (siz := _J2K_SIZE.search(frame[:65_536])) is not None:
        right, lower, left, upper = map(number, siz.groups())
        return right - left, lower - upper
    position = 2
    while frame[:2] == b"\xff\xd8" and position + 4 <= len(frame):
        if (sof := _JPEG_SIZE.match(frame, position)) is not None:
            return number(sof[3]), number(sof[2])
        if frame[position : position + 2] == b"\xff\xff":  # fill bytes before a marker
            position += 1
        elif frame[position] != 0xFF:
            break
        else:
            position += 2 + number(frame[position + 2 : position + 4])
    return 0, 0


def _first_success(decoder: Any, dataset: Any, plugins: list[str], syntax: Any) -> NDArray[Any]:
    for name in plugins:
        try:
            return np.asarray(decoder.as_array(dataset, index=0, raw=False, decoding_plugin=name)[0])
        except Exception:  # decoders raise anything; the next one may do
            continue
    if {"pylibjpeg", "pydicom"} & set(plugins):
        raise UnreadableImage(f"DICOM compressed as {_name(syntax)}: no decoder could read its pixel data")
    raise UnreadableImage(
        f"DICOM compressed as {_name(syntax)}, which no installed decoder reads: pip install 'medalign[dicom]'"
    )
