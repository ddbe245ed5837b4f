"""Checks for untrusted Parquet files: their footer and page headers are checked before a column is decoded.

A few kilobytes of Parquet can claim thirty million rows, or pages of 2 GB. So the fields of a footer are counted before
pyarrow parses it. Then rows, schema and encodings are compared with what a store may have, and the pages of a column
may not add up to more bytes than its rows can need. Only then does pyarrow decode them, from bytes in memory.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ....plain_text import quoted_error
from ..access.store_files import OpenFile, StoreFiles
from ..store_errors import DamagedStore, Obstacle
from .thrift import read_struct

_MAGIC: Final = b"PAR1"
_TAIL: Final = 8
"""Bytes of the footer's length field and the magic number."""
_TAIL_AT_ONCE: Final = 1 << 16
_MOST_FOOTER: Final = 64 << 20
_MOST_PARTS: Final = 10_000
"""Most fields and elements of a footer, plus one for each `_PART_OF` bytes of the file; a row group of 65,536 rows has
320 in 6 MB."""
_PART_OF: Final = 1000
_MOST_PAGE_PARTS: Final = 64
_DATA_PAGE, _DATA_PAGE_V2, _PLAIN = 0, 3, 0
_GROUPS, _COLUMNS, _ABOUT, _TYPE, _CODEC = 4, 1, 3, 1, 4
"""Field numbers in the footer, a row group, a column and a column's metadata (parquet.thrift)."""
_CODECS: Final = (0, 6)
"""Uncompressed and Zstandard."""
_MOST_TYPE: Final = 7
_FILE_PATH, _ROWS, _SIZE, _START, _DICTIONARY = 1, 3, 7, 9, 11
_ENCRYPTED: Final = {8, 9}
"""Field numbers of a column's encryption."""
_FEW: Final = 1 << 16
_DIGEST_BYTES: Final = 24
"""A column of distinct digests has at least this many bytes for each, because no codec can compress the 32 bytes of a
SHA-256 much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits for a table of a store."""

    schema: pa.Schema
    rows: int
    column_bytes: int
    """Most bytes of one column after decoding."""
    digests: str | None = None
    """Name of a column of distinct SHA-256 digests without nulls."""


@contextmanager
def damaged_parquet(location: str, key: str) -> Iterator[None]:
    """Turn any exception that pyarrow raises for damaged Parquet into DamagedStore; it has no common class for them."""
    try:
        yield
    except (DamagedStore, Obstacle, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DamagedStore(f"{key} of {location} is missing") from error
    except Exception as error:
        raise DamagedStore(f"{key} of {location} is damaged: {quoted_error(error)}") from error


def read_footer(file: OpenFile) -> tuple[Any, list[dict[int, Any]]]:
    """The metadata of a Parquet file as pyarrow's FileMetaData, and its row groups as parsed here from the footer.

    Row groups and columns are not read through pyarrow, because it ends the process (std::terminate) if one of their
    codecs or statistics is invalid.

    Raises:
        ValueError: there is no footer, or it has more fields than any file of a store.
    """
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - _TAIL_AT_ONCE)
    file.seek(start)
    tail = file.read(size - start)
    length = int.from_bytes(tail[-_TAIL:-4], "little")
    if tail[-4:] != _MAGIC or length + _TAIL > size:
        raise ValueError("it is not a Parquet file")
    if length > _MOST_FOOTER:
        raise ValueError(f"its footer has {length} bytes, more than {_MOST_FOOTER}")
    if length + _TAIL > len(tail):
        file.seek(size - length - _TAIL)
        tail = file.read(length + _TAIL)
    footer = tail[-length - _TAIL :]
    parsed, _ = read_struct(memoryview(footer), 0, _MOST_PARTS + size // _PART_OF)
    for group in parsed[_GROUPS]:
        for column in group[_COLUMNS]:
            # pyarrow ends the process (std::terminate) for a codec that it does not know
            if (
                column.keys() & _ENCRYPTED
                or column[_ABOUT][_CODEC] not in _CODECS
                or not 0 <= column[_ABOUT][_TYPE] <= _MOST_TYPE
            ):
                raise ValueError("it has columns with a codec or type that stores do not use")
    return pq.read_metadata(io.BytesIO(_MAGIC + footer)), parsed[_GROUPS]


def open_columns(files: StoreFiles, key: str, names: Sequence[str], limits: Limits) -> Any:
    """Read columns of a file into memory, within `limits`, as pyarrow's ParquetFile.

    Raises:
        DamagedStore: the file is missing or damaged, or its content exceeds or contradicts `limits`.
    """
    with damaged_parquet(files.location, key), files.open(key) as file:
        metadata, groups = read_footer(file)
        _check_footer(metadata, groups, limits)
        parts = [part for name in names for part in _column(file, groups, limits.schema.names.index(name), limits)]
        return pq.ParquetFile(_Parts(parts), metadata=metadata, pre_buffer=False, page_checksum_verification=True)


def _check_footer(metadata: Any, groups: Sequence[dict[int, Any]], limits: Limits) -> None:
    rows = [group[_ROWS] for group in groups]
    if not 0 <= metadata.num_rows <= limits.rows or sum(rows) != metadata.num_rows or min(rows, default=0) < 0:
        raise ValueError(f"it claims {metadata.num_rows} rows, but the header allows {limits.rows}")
    schema = metadata.schema.to_arrow_schema()
    if not schema.equals(limits.schema):
        raise ValueError(f"its columns are {_listed(schema)}, but should be {_listed(limits.schema)}")
    if limits.digests is not None and metadata.num_rows > _FEW:
        number = limits.schema.names.index(limits.digests)
        size = sum(group[_COLUMNS][number][_ABOUT][_SIZE] for group in groups)
        if size < metadata.num_rows * _DIGEST_BYTES:
            raise ValueError(f"it claims {metadata.num_rows} different images in {size} bytes")


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name[:20]!r} {str(field.type)[:20]}" for field in list(schema)[:12])


def _column(
    file: OpenFile, groups: Sequence[dict[int, Any]], number: int, limits: Limits
) -> Iterator[tuple[int, bytes]]:
    """Position and bytes of a column in each row group, after its pages have been checked."""
    left, decoded, name = file.seek(0, io.SEEK_END), 0, limits.schema.names[number]
    for group in groups:
        column = group[_COLUMNS][number][_ABOUT]
        start, length = column[_START], column[_SIZE]
        left -= length  # the row groups of a column do not share bytes
        if (length and start < len(_MAGIC)) or length < 0 or left < 0:
            raise ValueError(f"column {name} is outside the file")
        file.seek(max(0, start))
        data = file.read(length)
        decoded += _decoded_bytes(memoryview(data), length, group[_ROWS])
        if decoded > limits.column_bytes:
            raise ValueError(f"column {name} claims more than {limits.column_bytes} bytes for its rows")
        yield start, data


def _decoded_bytes(data: memoryview, length: int, rows: int) -> int:
    """Decoded size of a column's pages, from their headers. Together they must have `length` bytes and `rows` values.

    A page decodes to as many bytes as its header says, and plain values need no more memory than that.
    """
    at, values, decoded = 0, 0, 0
    while at < len(data):
        header, at = read_struct(data, at, _MOST_PAGE_PARTS)
        plain = header.get(1) in (_DATA_PAGE, _DATA_PAGE_V2)
        page = header.get(5 if header.get(1) == _DATA_PAGE else 8, {})
        encoding = page.get(2 if header.get(1) == _DATA_PAGE else 4)
        if not plain or encoding != _PLAIN or min(header[2], header[3], page[1]) < 0:
            raise ValueError("it has pages with an encoding that stores do not use")
        at, values, decoded = at + header[3], values + page[1], decoded + header[2]
    if at != length or values != rows:
        raise ValueError(f"its pages have {values} values in {at} bytes, not {rows} in {length}")
    return decoded


class _Parts(io.RawIOBase):
    """Parts of a file at their positions; the rest of the file reads as empty."""

    def __init__(self, parts: Sequence[tuple[int, bytes]]) -> None:
        self._parts, self._at = parts, 0
        self._size = max((start + len(data) for start, data in parts), default=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._data_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _data_at(self, start: int, length: int) -> bytes:
        for first, data in self._parts:
            if first <= start < first + len(data):
                return data[start - first : start - first + length]
        return b""
