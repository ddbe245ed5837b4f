"""The stored values of a single-frame DICOM file, uncompressed or decoded by an installed decoder."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..image_errors import UnreadableImage
from ..raster.jpeg import jpeg_head, require_scans, survey_jpeg
from ..raster.jpeg2000 import siz_of
from ..raster.jpeg_damage import JpegBytes, load_whole_jpeg
from .frame_count import require_single_frame
from .header_values import PixelFormat, element_name, pixel_format, require_element

_PLUGINS = ("pillow", "pylibjpeg", "gdcm", "pyjpegls")
"""Decoders in the order in which they are tried, the same on every machine, because lossy decoders differ slightly."""

_RLE_PLUGINS = ("pydicom",)
"""RLE is decoded by pydicom, which is fast enough; pylibjpeg-rle panics on invalid runs, which `except Exception` does
not catch."""

_MOST_FRAGMENTS = 100_000
_FRAGMENT = b"\xfe\xff\x00\xe0"

_PADDING = 64
"""Most bytes that writers add after a code stream's end marker; the marker cannot occur inside a code stream."""

_SIZES = "DICOM whose pixel data are not of the size that its header says"

_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
"""JPEG baseline and extended, JPEG-LS near lossless, JPEG 2000."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The samples of one frame and how to interpret them."""

    pixels: NDArray[Any]
    """[height, width], or RGB [height, width, 3]."""
    format: PixelFormat
    little_endian: bool
    """Byte order of the words in the file."""


def decode_frame(dataset: Any, width: int, height: int) -> Frame:
    """Decode stored values [height, width], or RGB [height, width, 3] (YBR converted, planes merged).

    Bits outside the sample (overlays in the same word) are cleared. The code stream overrides the header: a signed
    JPEG 2000 stream has signed samples, and a JPEG with subsampled chroma is not RGB.

    Raises:
        UnreadableImage: it is truncated, has several frames, has a compression that no installed decoder reads, does
            not have the size in its header, or lacks an element that describes its pixels.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import RLELossless

    kind = pixel_format(dataset)
    syntax = _transfer_syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(
            f"DICOM in a transfer syntax that medalign does not support ({_name(syntax)}); export it as PNG"
        ) from error
    if kind.samples > 1 and "PlanarConfiguration" not in dataset and syntax.is_encapsulated and syntax != RLELossless:
        dataset.PlanarConfiguration = 0  # given by the code stream
    if kind.samples > 1:
        require_element(dataset, "PlanarConfiguration")
    precision = None
    in_words = kind.samples == 1 or (kind.high >= kind.stored and not _in_code_stream(syntax))
    _require_color_format(dataset, kind, in_words=in_words)
    options = {"correct_unused_bits": False} if in_words else {}  # `sample_bits` does it, with High Bit
    if syntax.is_encapsulated:
        order = _RLE_PLUGINS if syntax == RLELossless else _PLUGINS
        plugins = [name for name in order if name in decoder.available_plugins]
        frame = _complete_frame(dataset, width, height)
        if syntax != RLELossless:
            kind, precision = _by_code_stream(dataset, kind, frame)
        pixels = _first_success(decoder, dataset, plugins, syntax, options)
    else:
        _require_complete_pixels(dataset)
        pixels = decoder.as_array(dataset, index=0, raw=False, **options)[0]
    if pixels.shape != ((height, width) if kind.samples == 1 else (height, width, 3)):
        raise UnreadableImage(_SIZES)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if in_words:
        pixels = sample_bits(pixels, kind, precision, lossy=str(syntax) in _LOSSY)
    elif precision is not None and precision < kind.stored:
        kind = replace(kind, stored=precision)
    return Frame(pixels, kind, bool(syntax.is_little_endian))


def _in_code_stream(syntax: Any) -> bool:
    from pydicom.uid import RLELossless

    return bool(syntax.is_encapsulated) and syntax != RLELossless


def _require_color_format(dataset: Any, kind: PixelFormat, *, in_words: bool) -> None:
    """Check that color samples are unsigned, and that YBR samples do not need a shift.

    Raises:
        UnreadableImage: they are signed, or need a shift.
    """
    if kind.samples == 1:
        return
    if kind.signed:
        raise UnreadableImage(
            f"DICOM in color whose {element_name('PixelRepresentation')} is 1: signed samples have no color; export it "
            "as PNG"
        )
    if in_words and str(dataset.PhotometricInterpretation).strip() != "RGB":
        raise UnreadableImage(
            f"DICOM in YBR whose {element_name('HighBit')} is {kind.high} and whose {element_name('BitsStored')} is "
            f"{kind.stored}: export it as RGB"
        )


def _by_code_stream(dataset: Any, kind: PixelFormat, frame: bytes) -> tuple[PixelFormat, int]:
    """Correct the header with the code stream's own header; also returns the stream's precision in bits."""
    if (siz := siz_of(frame)) is not None:
        if siz.signed and not kind.signed:  # GDCM's recompression of signed CT
            dataset.PixelRepresentation = 1
            kind = replace(kind, signed=True)
        return kind, siz.precision
    head = jpeg_head(frame)
    if head is None:
        return kind, kind.allocated
    if head.frame <= 0xC2 and head.precision == 8:
        file = JpegBytes(frame)
        with Image.open(file, formats=("JPEG",)) as image:
            load_whole_jpeg(frame, image, file, survey_jpeg(frame))
    if dataset.PhotometricInterpretation == "RGB" and head.subsampled and head.transform is None:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    return kind, head.precision


def sample_bits(
    values: NDArray[Any], kind: PixelFormat, precision: int | None = None, *, lossy: bool = False
) -> NDArray[Any]:
    """Extract samples from decoded words: shift by High Bit, clear other bits, extend the sign (PS3.5 8.1.1).

    Words contradict High Bit if they use bits below the sample, and no bits above a sample that starts at bit 0; they
    are not changed. The same holds for code streams with more bits than the header says, if the upper bits continue
    the lower ones. Lossy words have no overlays, so their values are clipped to the sample's range. `precision` is the
    number of bits according to the code stream; `None` for words outside a code stream.
    """
    width = 8 * values.dtype.itemsize
    if kind.allocated == 1 or kind.stored >= width:
        return values
    if lossy:
        return np.asarray(np.clip(values, kind.lowest, kind.highest))
    words: NDArray[Any] = values.view(f"u{values.dtype.itemsize}")
    shift = kind.high + 1 - kind.stored
    if (
        shift
        and (precision or width) > kind.high
        and not ((words & ((1 << shift) - 1)).any() and not (words >> kind.stored).any())
    ):
        words = words >> shift
    elif precision is not None and _carries_on(values, kind):
        return values
    words = words & ((1 << kind.stored) - 1)
    if not kind.signed:
        return words
    sign = 1 << kind.stored - 1
    return np.asarray((words.astype(np.int64) ^ sign) - sign).astype(f"i{values.dtype.itemsize}")


def _carries_on(values: NDArray[Any], kind: PixelFormat) -> bool:
    """Whether bits above Bits Stored belong to the sample: where they change, the lower bits wrap around.

    Where the bit of an overlay changes, the lower bits continue smoothly.
    """
    if values.min() >= kind.lowest and values.max() <= kind.highest:
        return False
    whole = values.astype(np.int64)
    upper, lower = whole >> kind.stored, whole & ((1 << kind.stored) - 1)
    changes = np.diff(upper, axis=1) != 0
    beside = changes[:, 1:] | changes[:, :-1]
    if not beside.any():
        return False
    all_bits, below = (np.median(abs(np.diff(part, n=2, axis=1)[beside])) for part in (whole, lower))
    return bool(all_bits < below)


def _transfer_syntax(dataset: Any) -> Any:
    """The file's transfer syntax; for a file without a file meta header, the one that pydicom has guessed."""
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

    expected, actual = get_expected_length(dataset), len(dataset.PixelData)
    if actual < expected:
        raise UnreadableImage(f"truncated: {actual} of {expected} bytes of DICOM pixel data")
    require_single_frame(dataset, expected)


def _complete_frame(dataset: Any, width: int, height: int) -> bytes:
    """The compressed frame, after checking its end and its size, so that no decoder allocates memory for a bad one."""
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    data = dataset.PixelData
    if data.count(_FRAGMENT) > _MOST_FRAGMENTS:
        raise UnreadableImage(f"DICOM with more than {_MOST_FRAGMENTS} fragments of pixel data")
    require_single_frame(dataset)
    frame = bytes(get_frame(data, 0, number_of_frames=1))
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        plain = width * height * int(dataset.SamplesPerPixel) * max(1, int(dataset.BitsAllocated) // 8)
        if len(frame) > 2 * plain + 65_536:  # run lengths at most double the size of an image
            raise UnreadableImage("DICOM with more run lengths than pixels")
        return frame
    if b"\xff\xd9" not in frame[-_PADDING:]:
        raise UnreadableImage("truncated: the compressed DICOM pixel data have no end")
    siz, head = siz_of(frame), jpeg_head(frame)
    coded = siz or head
    if coded is None or (coded.width, coded.height) != (width, height):
        raise UnreadableImage(_SIZES)
    if head is not None:
        require_scans(survey_jpeg(frame).scans, width, height)
    return frame


def _first_success(
    decoder: Any, dataset: Any, plugins: list[str], syntax: Any, options: dict[str, bool]
) -> NDArray[Any]:
    for name in plugins:
        try:
            return np.asarray(decoder.as_array(dataset, index=0, raw=False, decoding_plugin=name, **options)[0])
        except Exception:  # decoders raise any exception; the next one may succeed
            continue
    if {"pylibjpeg", "pydicom"} & set(plugins):
        raise UnreadableImage(f"DICOM compressed as {_name(syntax)}: no decoder could read its pixel data")
    raise UnreadableImage(
        f"DICOM compressed as {_name(syntax)}, which no installed decoder reads: pip install 'medalign[dicom]'"
    )
