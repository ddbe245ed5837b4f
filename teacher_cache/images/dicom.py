"""DICOM, by pydicom: which of a file's numbers are shown, and how bright (PS3.3 C.7.6.3, C.11).

pydicom is imported when the first DICOM file is met. Nothing of a header but numbers of the image module and names
that the standard itself defines goes into a reason: values may be a patient's.
"""

import io
import struct
import zlib
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .dicom_frame import decode_frame
from .grey import FUNCTIONS, Curve, Window, render
from .problems import UnreadableImage, require_size
from .reading import MAX_BYTES

HEAD_BYTES = 132
"""What `looks_like_dicom` wants to see."""

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MOST_ELEMENTS = 20_000
_VRS = (b"UI", b"UL", b"CS", b"OB", b"DA", b"DT", b"TM", b"LO", b"SH", b"IS")


def looks_like_dicom(data: bytes) -> bool:
    """Whether bytes begin as DICOM does: `DICM` at 128; where a writer forgot it, an element of group 0002 or 0008."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 16 or data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    element, length = struct.unpack("<HI", data[2:8])
    return element <= 0x0070 and (data[4:6] in _VRS or (length % 2 == 0 and 0 < length <= 64 and data[8:9].isalnum()))


def decode_dicom(data: bytes) -> Image.Image:
    """Render one frame to 8-bit L or RGB, as a viewer shows it at first.

    Grey: modality LUT or rescale, then VOI LUT or the first window, else smallest to largest value without padding;
    MONOCHROME1 is inverted. Colour: palette and YBR become RGB. Overlays, ICC profiles and presentation states are
    left out.

    Raises:
        UnreadableImage: several frames, no pixels, truncated, or in a compression that nothing installed reads.
    """
    dataset = _read(data)
    _require_one_frame(dataset)
    width, height = _size(dataset)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    pixels = decode_frame(dataset, width, height)
    if pixels.shape[:2] != (height, width):
        raise UnreadableImage("DICOM whose pixel data are not of the size that its header says")
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        return Image.fromarray(_grey(dataset, pixels, inverted=photometric == "MONOCHROME1"))
    if photometric == "PALETTE COLOR" and pixels.ndim == 2:
        return Image.fromarray(_palette(dataset, pixels))
    if photometric in _COLOUR and pixels.ndim == 3:
        return Image.fromarray(_eight_bits(pixels, int(dataset.BitsStored)))
    raise UnreadableImage("DICOM with a photometric interpretation that is not read; export it as RGB")


def _read(data: bytes) -> Any:
    """The file's elements, bounded in number and in what a deflated file may become.

    Raises:
        UnreadableImage: more than that, or no DICOM file at all.
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
            raise UnreadableImage(f"deflated DICOM that becomes more than {MAX_BYTES} bytes")
    file.seek(0)
    return read_partial(file, stop_when=too_many, force=True)


def _require_one_frame(dataset: Any) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise UnreadableImage(f"DICOM with {frames} frames: export the frame you mean as a DICOM file of its own")
    if "PixelData" in dataset:
        return
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnreadableImage("DICOM with floating-point pixels, a map of measurements: export it as a picture")
    if not dataset:  # pydicom gives up all of it where the end of the last element is missing
        raise UnreadableImage("DICOM that ends before its elements do: truncated")
    if "Rows" in dataset:
        raise UnreadableImage(f"DICOM without the pixel data that its header describes ({_kind(dataset)}): truncated")
    raise UnreadableImage(f"DICOM without pixel data ({_kind(dataset)})")


def _kind(dataset: Any) -> str:
    """The standard's own name for what a file holds; a private or made-up one is not repeated."""
    from pydicom.uid import UID, UID_dictionary

    uid = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    return UID(uid).name if uid in UID_dictionary else "of no standard kind"


def _size(dataset: Any) -> tuple[int, int]:
    width, height = int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)
    require_size(width, height)
    return width, height


def _grey(dataset: Any, pixels: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_modality_lut

    _apply_functional_groups(dataset)
    low = dataset.get("PixelPaddingValue")
    high = dataset.get("PixelPaddingRangeLimit", low)
    padding = None if low is None or high is None else (int(low), int(high))
    return render(
        pixels,
        lambda values: apply_modality_lut(values, dataset),
        _curve(dataset),
        inverted=inverted,
        padding=padding,
    )


def _apply_functional_groups(dataset: Any) -> None:
    """Enhanced objects keep rescale and window in sequences; their only frame has one of each."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in list(group.get(name) or [])[:1]:
                    dataset.update(item)


def _curve(dataset: Any) -> Curve | None:
    """VOI LUT, else the first window, else `None`. A window that the standard forbids counts as none."""
    if dataset.get("VOILUTSequence"):
        return _voi_lut(dataset)
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    window = Window(centre=centre, width=width, function=function if function in FUNCTIONS else "LINEAR")
    return window if window.valid else None


def _voi_lut(dataset: Any) -> Curve:
    from pydicom.pixels import apply_voi

    entries, first, bits = (int(value) for value in dataset.VOILUTSequence[0].LUTDescriptor)
    last = first + (entries or 2**16) - 1

    def brightness(units: NDArray[np.float64]) -> NDArray[np.float64]:
        whole = np.rint(np.clip(units, first, last)).astype(np.int64)
        brightest: float = 2**bits - 1
        return np.asarray(apply_voi(whole, dataset)).astype(np.float64) / brightest

    return brightness


def _first(value: Any) -> float | None:
    """The first of one or several numbers of a header."""
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) else value[0])


def _palette(dataset: Any, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_color_lut

    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise UnreadableImage("DICOM with a segmented palette: export it as RGB")  # it expands without a bound
    colours = apply_color_lut(pixels, dataset)[..., :3]
    return _eight_bits(colours, 8 * colours.dtype.itemsize)


def _eight_bits(colours: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits == 8 and colours.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    brightest: float = 2**bits - 1
    return np.round(np.clip(colours * (255 / brightest), 0, 255)).astype(np.uint8)
