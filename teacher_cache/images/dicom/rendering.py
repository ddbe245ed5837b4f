"""Rendering DICOM with pydicom: which stored values are shown, and how bright (PS3.3 C.7.6.3, C.11).

pydicom is imported for the first DICOM file. Reasons contain only numbers of the image module and names that the
standard defines, and nothing else from a header, because other values may identify a patient.
"""

import io
import struct
import zlib
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....plain_text import size_text
from ..contrast import require_contrast
from ..image_errors import UnreadableImage, require_size
from ..safe_read import MAX_BYTES
from ..windowing import FUNCTIONS, Curve, Window, render
from .frame import Frame, decode_frame
from .header_values import PixelFormat, first_number, numbers, whole_number
from .lookup_tables import Table, gray_table, palette_to_16_bits, with_table

HEAD_BYTES = 132
"""Number of bytes that `looks_like_dicom` needs."""

_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MOST_ELEMENTS = 20_000
_VRS = (b"UI", b"UL", b"CS", b"OB", b"DA", b"DT", b"TM", b"LO", b"SH", b"IS")
_BIG_ENDIAN_STARTS = (b"\0\x08\0\0", b"\0\x08\0\x05", b"\0\x08\0\x08", b"\0\x08\0\x16")
"""(0008,0000), (0008,0005), (0008,0008) or (0008,0016) of a big-endian file without a file meta header."""


def looks_like_dicom(data: bytes) -> bool:
    """Whether bytes look like DICOM: `DICM` at offset 128, or an element of group 0002 or 0008 at the start."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 16:
        return False
    if data[:4] in _BIG_ENDIAN_STARTS:
        return data[4:6] in _VRS
    if data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    element, length = struct.unpack("<HI", data[2:8])
    if element == 0:  # group length, an unsigned long, followed by the other elements
        return (data[4:6] == b"UL" or length == 4) and data[12:14] == data[:2]
    return element <= 0x0070 and (data[4:6] in _VRS or (length % 2 == 0 and 0 < length <= 64 and data[8:9].isalnum()))


def decode_dicom(data: bytes) -> Image.Image:
    """Render one frame to 8-bit L or RGB, as a viewer initially shows it.

    Gray: modality LUT or rescale, then VOI LUT or the first window, or else the range of values without padding;
    MONOCHROME1 is inverted. Color: palette and YBR are converted to RGB. Overlays, ICC profiles and presentation states
    are ignored.

    Raises:
        UnreadableImage: it has several frames or no pixels, is truncated, or has a compression that no installed
            decoder reads.
    """
    dataset = _read(data)
    _require_one_frame(dataset)
    width, height = _size(dataset)
    frame = decode_frame(dataset, width, height)
    pixels, kind = frame.pixels, frame.format
    photometric = str(dataset.PhotometricInterpretation).strip()
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        return Image.fromarray(_gray(dataset, frame, inverted=photometric == "MONOCHROME1"))
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        colors = _palette(dataset, frame)
    elif photometric in _COLOR and pixels.ndim == 3:
        colors = _eight_bits(pixels, kind.stored)
    else:
        raise UnreadableImage(
            "DICOM with a photometric interpretation that medalign does not support; export it as RGB"
        )
    require_contrast(pixels, colors, "DICOM", "its colors differ by less than one of 256 levels; export it as PNG")
    return Image.fromarray(colors)


def _read(data: bytes) -> Any:
    """Read the file's elements, with limits on their number and on the inflated size of a deflated file.

    Raises:
        UnreadableImage: a limit is exceeded, or it is not a DICOM file.
    """
    from pydicom.filereader import read_dataset, read_partial, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file, seen = io.BytesIO(data), count()

    def too_many(*_: object) -> bool:
        if next(seen) > _MOST_ELEMENTS:
            raise UnreadableImage(f"DICOM with more than {_MOST_ELEMENTS} elements")
        return False

    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: too_many() or tag.group != 2)
    start = file.tell()
    if data[start : start + 2] == b"\x00\x00":
        raise UnreadableImage("a DICOM network message, not a DICOM file")
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflater.decompress(data[start:], MAX_BYTES)
        if inflater.unconsumed_tail:
            raise UnreadableImage(f"deflated DICOM that becomes more than {size_text(MAX_BYTES)}")
    file.seek(0)
    return read_partial(file, stop_when=too_many, force=True)


def _require_one_frame(dataset: Any) -> None:
    frames = whole_number(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise UnreadableImage(f"DICOM with {frames} frames: export the frame you mean as a DICOM file of its own")
    if "PixelData" in dataset:
        return
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnreadableImage("DICOM with floating-point pixels, a map of measurements: export it as a picture")
    if not dataset:  # pydicom returns nothing if the end of the last element is missing
        raise UnreadableImage("DICOM that ends before its elements do: truncated")
    if "Rows" in dataset:
        raise UnreadableImage(f"DICOM without the pixel data that its header describes ({_kind(dataset)}): truncated")
    raise UnreadableImage(f"DICOM without pixel data ({_kind(dataset)})")


def _kind(dataset: Any) -> str:
    """The standard's name for the kind of object in a file; private and invalid names are not shown."""
    from pydicom.uid import UID, UID_dictionary

    uid = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    return UID(uid).name if uid in UID_dictionary else "of no standard kind"


def _size(dataset: Any) -> tuple[int, int]:
    width, height = whole_number(dataset, "Columns"), whole_number(dataset, "Rows")
    require_size(width, height)
    return width, height


def _gray(dataset: Any, frame: Frame, *, inverted: bool) -> NDArray[np.uint8]:
    _apply_functional_groups(dataset)
    modality, lowest = _modality(dataset, frame)
    return render(
        frame.pixels,
        modality,
        _curve(dataset, may_be_negative=lowest < 0, little_endian=frame.little_endian),
        inverted=inverted,
        padding=_padding(dataset, frame.format),
    )


def _modality(dataset: Any, frame: Frame) -> tuple[Curve, float]:
    """The conversion of stored values to modality units by pydicom, and the smallest possible unit.

    A slope that is 0, empty or not a number is replaced by 1, and such an intercept by 0. The standard forbids these
    values, and viewers do the same.
    """
    from pydicom.pixels import apply_modality_lut

    kind, little_endian = frame.format, frame.little_endian
    items = dataset.get("ModalityLUTSequence")
    table = gray_table(items[0], signed=kind.signed, little_endian=little_endian) if items else None
    lowest = float(kind.lowest)
    if table is not None:
        with_table(items[0], table)
        lowest = 0.0
    else:
        dataset.pop("ModalityLUTSequence", None)
    if table is None and ("RescaleSlope" in dataset or "RescaleIntercept" in dataset):
        slope = first_number(dataset, "RescaleSlope") or 1.0
        intercept = first_number(dataset, "RescaleIntercept") or 0.0
        dataset.add_new("RescaleSlope", "FD", slope)
        dataset.add_new("RescaleIntercept", "FD", intercept)
        lowest = min(kind.lowest * slope, kind.highest * slope) + intercept
    # 64 bits, because pydicom subtracts a table's first value in the dtype of the pixels, where it may not fit.
    return lambda values: np.asarray(apply_modality_lut(values.astype(np.int64), dataset), np.float64), lowest


def _padding(dataset: Any, kind: PixelFormat) -> tuple[int, int] | None:
    """First and last value of the padding range, with the sign of the pixels, regardless of the VR in the file."""
    low = first_number(dataset, "PixelPaddingValue")
    if low is None:
        return None
    high = first_number(dataset, "PixelPaddingRangeLimit")
    if high is not None:
        return _in_sign_of(int(low), kind, kind.allocated), _in_sign_of(int(high), kind, kind.allocated)
    value = _in_sign_of(int(low), kind, kind.allocated)
    if kind.signed:  # written without sign extension
        value = _in_sign_of(value, kind, kind.stored)
    return value, value


def _in_sign_of(value: int, kind: PixelFormat, bits: int) -> int:
    """A value of `bits` bits with the signedness of the samples: 63536 means -2000 if the file declares it unsigned."""
    if kind.signed:
        return value - (1 << bits) if 1 << bits - 1 <= value < 1 << bits else value
    return value + (1 << bits) if value < 0 else value


def _apply_functional_groups(dataset: Any) -> None:
    """Copy rescale and window of enhanced objects from their sequences; the only frame has one of each."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in list(group.get(name) or [])[:1]:
                    dataset.update(item)


def _curve(dataset: Any, *, may_be_negative: bool, little_endian: bool) -> Curve | None:
    """The VOI LUT, or the first usable window, or `None`.

    A window that the standard forbids, or that is empty or not a number, is ignored.
    """
    items = dataset.get("VOILUTSequence")
    table = gray_table(items[0], signed=may_be_negative, little_endian=little_endian) if items else None
    if table is not None:
        with_table(items[0], table)
        return _voi_lut(dataset, table)
    name = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    function = name if name in FUNCTIONS else "LINEAR"
    for center, width in zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False):
        if center is not None and width is not None:
            window = Window(center=center, width=width, function=function)
            if window.valid:
                return window
    return None


def _voi_lut(dataset: Any, table: Table) -> Curve:
    from pydicom.pixels import apply_voi

    last = table.first + len(table.entries) - 1
    brightest: float = 2**table.bits - 1

    def brightness(units: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.rint(np.clip(units, table.first, last)).astype(np.int64)
        return np.asarray(apply_voi(whole, dataset)).astype(np.float64) / brightest

    return brightness


def _palette(dataset: Any, frame: Frame) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut

    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise UnreadableImage("DICOM with a segmented palette: export it as RGB")  # its expanded size is unbounded
    palette_to_16_bits(dataset, signed=frame.format.signed, little_endian=frame.little_endian)
    return _eight_bits(apply_color_lut(frame.pixels.astype(np.int32), dataset)[..., :3], 16)


def _eight_bits(colors: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits == 8 and colors.dtype == np.uint8:
        return np.ascontiguousarray(colors)
    brightest: float = 2**bits - 1
    return np.round(np.clip(colors * (255 / brightest), 0, 255)).astype(np.uint8)
