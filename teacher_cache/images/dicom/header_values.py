"""Reading values of a DICOM header; errors give missing and invalid elements the names in the standard."""

import math
from dataclasses import dataclass
from typing import Any

from ..image_errors import UnreadableImage

_REMEDY = "export it again from the archive, or as PNG"


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelFormat:
    """The layout of an image's samples in their words (PS3.3 C.7.6.3.1, PS3.5 8.1.1)."""

    samples: int
    """Samples per pixel: 1 or 3."""
    allocated: int
    """Bits per word."""
    stored: int
    """Bits per sample."""
    high: int
    """Highest bit of the sample in the word."""
    signed: bool
    """Whether samples are in two's complement."""

    @property
    def lowest(self) -> int:
        """Smallest possible value of a sample."""
        return -(1 << self.stored - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest possible value of a sample."""
        return (1 << self.stored - self.signed) - 1


def element_name(keyword: str) -> str:
    """`BitsStored` -> `Bits Stored (0028,0101)`."""
    from pydicom.datadict import dictionary_description, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def require_element(dataset: Any, keyword: str) -> None:
    """Check that an element exists and has a value.

    Raises:
        UnreadableImage: it is missing or empty; the message names it.
    """
    if keyword not in dataset or dataset[keyword].is_empty:
        raise UnreadableImage(
            f"DICOM without {element_name(keyword)}, which says how its pixels are to be read: {_REMEDY}"
        )


def whole_number(dataset: Any, keyword: str, default: int | None = None) -> int:
    """The integer value of an element; `default` if it is missing or empty.

    Raises:
        UnreadableImage: it is not a number, or is missing without a default; the message names the element.
    """
    try:
        value = dataset.get(keyword)
        if value is not None and value != "":
            return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableImage(f"DICOM whose {element_name(keyword)} is not a number: {_REMEDY}") from error
    if default is None:
        require_element(dataset, keyword)
        raise AssertionError(keyword)
    return default


def numbers(dataset: Any, keyword: str) -> list[float | None]:
    """All values of a numeric element; `None` for empty, invalid and non-finite values; [] if it is missing."""
    try:
        value = dataset.get(keyword)
    except (TypeError, ValueError):  # pydicom converts an element on first access, all values or none
        value = bytes(dataset.get_item(keyword).value).decode("ascii", "replace").split("\\")
    if value is None:
        return []
    values = [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else list(value)
    return [_finite(item) for item in values]


def first_number(dataset: Any, keyword: str) -> float | None:
    """The first value of a numeric element; `None` if it is missing or unusable."""
    values = numbers(dataset, keyword)
    return values[0] if values else None


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def pixel_format(dataset: Any) -> PixelFormat:
    """The sample layout in the header; High Bit is derived from Bits Stored if it is missing or impossible.

    Raises:
        UnreadableImage: a required element is missing or contradicts another; the message names it.
    """
    require_element(dataset, "PhotometricInterpretation")
    samples = whole_number(dataset, "SamplesPerPixel")
    allocated, stored = whole_number(dataset, "BitsAllocated"), whole_number(dataset, "BitsStored")
    signed = whole_number(dataset, "PixelRepresentation") == 1
    if samples not in (1, 3):
        raise UnreadableImage(f"DICOM with {samples} samples in a pixel: export it as RGB or gray")
    if not 1 <= stored <= allocated:
        raise UnreadableImage(
            f"DICOM whose {element_name('BitsStored')} is {stored} and whose {element_name('BitsAllocated')} is "
            f"{allocated}: {_REMEDY}"
        )
    high = whole_number(dataset, "HighBit", stored - 1)
    if not stored - 1 <= high < allocated:
        high = stored - 1
    return PixelFormat(samples=samples, allocated=allocated, stored=stored, high=high, signed=signed)
