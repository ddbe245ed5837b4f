"""Converting lookup tables of a DICOM file to the one form that pydicom's functions apply correctly.

pydicom 3.0 treats 8-bit entries as 16-bit ones, reads palettes in the machine's byte order, wraps indices into 8-bit
tables at 256 entries, and trusts a header that declares a first value as unsigned. So each table is converted to a list
of 16-bit entries, with its first value as an integer, before pydicom applies it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..image_errors import UnreadableImage
from .header_values import element_name

NARROW_BITS = 3
"""Number of excess bits in a range if values use less than an eighth of it."""

_COLORS = ("Red", "Green", "Blue")


@dataclass(frozen=True, slots=True)
class Table:
    """One lookup table."""

    entries: NDArray[np.uint16]
    first: int
    """The input value of the first entry."""
    bits: int
    """Bits per entry: those in the header, or those in use if the header cannot be right (`used_bits`)."""


def gray_table(item: Any, *, signed: bool, little_endian: bool) -> Table | None:
    """Modality or VOI LUT of a sequence item; `None` if it has none. `signed`: its input may be negative.

    Raises:
        UnreadableImage: it has fewer entries than its descriptor says.
    """
    if item.get("LUTDescriptor") is None or not item.get("LUTData"):
        return None
    count, first, bits = _descriptor(item["LUTDescriptor"], signed)
    entries = _entries(item["LUTData"].value, count, little_endian)
    return Table(entries, first, used_bits(int(entries.max()), bits))


def with_table(item: Any, table: Table) -> None:
    """Write a table back in the form that pydicom applies correctly."""
    item.add_new("LUTDescriptor", "US", [len(table.entries) % 2**16, table.first, 16])
    item.add_new("LUTData", "US", table.entries.tolist())


def palette_to_16_bits(dataset: Any, *, signed: bool, little_endian: bool) -> None:
    """Scale the three tables of a palette to the full 16-bit range (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6).

    Raises:
        UnreadableImage: a table is missing, or shorter than its descriptor says.
    """
    tables = []
    for color in _COLORS:
        described, data = f"{color}PaletteColorLookupTableDescriptor", f"{color}PaletteColorLookupTableData"
        for keyword in (described, data):
            if not dataset.get(keyword):
                raise UnreadableImage(f"DICOM with a palette without {element_name(keyword)}: export it as RGB")
        count, first, bits = _descriptor(dataset[described], signed)
        tables.append(Table(_entries(dataset[data].value, count, little_endian), first, bits))
    if len({(len(table.entries), table.first) for table in tables}) != 1:
        raise UnreadableImage("DICOM whose palette has tables of different lengths: export it as RGB")
    bits = _palette_bits(tables)
    brightest = (1 << bits) - 1
    for color, table in zip(_COLORS, tables, strict=True):
        values = [len(table.entries) % 2**16, table.first, 16]
        dataset.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", values)
        entries = ((table.entries.astype(np.uint32) * 65_535 + brightest // 2) // brightest).astype(np.uint16)
        dataset.add_new(f"{color}PaletteColorLookupTableData", "OW", entries.tobytes())


def _palette_bits(tables: list[Table]) -> int:
    """Bits of a palette's entries: 8 if all fit, otherwise the descriptors' bits if they are 9 to 15, otherwise 16.

    The standard allows only 8 and 16, but there are files with tables of 10 and 12 bits.
    """
    largest = max(int(table.entries.max()) for table in tables)
    described = max(table.bits for table in tables)
    if largest < 1 << 8:
        return 8
    return used_bits(largest, described) if 8 < described < 16 and largest < 1 << described else 16


def used_bits(largest: int, described: int) -> int:
    """Bits that a table's entries use, if they exceed the described bits or use less than an eighth of their range.

    Some writers describe tables of 12 bits as 16 (and of 16 as 8); rendered as described, they are nearly black.
    """
    used = max(largest.bit_length(), 8)
    return used if used > described or used <= described - NARROW_BITS else described


def _descriptor(element: Any, signed: bool) -> tuple[int, int, int]:
    """Number of entries, first value and bits per entry, regardless of the VR in the file.

    The number of entries and the bits are always unsigned. The first value has the sign of the table's input
    (PS3.3 C.11.2.1.1).
    """
    values = list(element.value) if element.VM > 1 else []
    if len(values) != 3:
        raise UnreadableImage(f"DICOM whose {element.name} does not have three values: export it as PNG")
    count, first, bits = (int(value) for value in values)
    if signed and first >= 2**15:
        first -= 2**16
    return (count % 2**16) or 2**16, first, bits % 2**16


def _entries(value: Any, count: int, little_endian: bool) -> NDArray[np.uint16]:
    """Entries of a table: 16-bit words, or two 8-bit entries per word, the first one in the low byte."""
    if isinstance(value, bytes):
        words = np.frombuffer(value[: len(value) // 2 * 2], "<u2" if little_endian else ">u2")
    else:
        words = np.atleast_1d(np.asarray(value)).astype(np.int64).astype(np.uint16)
    if len(words) >= count:
        return words[:count].astype(np.uint16)
    packed = words.astype("<u2").view(np.uint8)
    if len(packed) < count:
        raise UnreadableImage(
            f"DICOM whose look-up table has {len(packed)} bytes for {count} entries: export it as PNG"
        )
    return packed[:count].astype(np.uint16)
