"""Parquet tables that medalign writes outside of stores; a changed bit is detected or has no effect on the table.

Parquet's own checksums cover neither page headers nor the footer with its metadata. So the SHA-256 of all other bytes
is stored between the pages and the footer, where no Parquet reader looks; other programs that rewrite the table drop
it. Files without it, from earlier versions, are also read. In all of them the parts of the footer and the pages are
counted before anything is decoded (`teacher_cache/store/records/parquet_guard.py` explains why).
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException

from ... import atomic
from ...errors import InputError
from ...plain_text import quoted_error
from ...teacher_cache.store.records.thrift import read_struct

METADATA_KEY: Final = "medalign"
"""Key of the header (JSON) in the file's key-value metadata."""
_MARK: Final = b"\x00medalign SHA-256\x00"
_DIGEST: Final = hashlib.sha256().digest_size
_MAGIC: Final = b"PAR1"
_TAIL: Final = 8
"""Bytes of the footer length and the magic number."""
_MOST_PARTS: Final = 1_000_000
"""Of a footer."""
_MOST_PAGE_PARTS: Final = 64
_FEW: Final = 64 << 20
_RATIO: Final = 1000
"""Largest plausible number of decoded bytes, or of values of a column, per byte of the file."""
_ROWS, _GROUPS, _GROUP_COLUMNS, _GROUP_ROWS = 3, 4, 1, 3
_ABOUT, _TYPE, _CODEC, _VALUES, _SIZE, _START, _DICTIONARY = 3, 1, 4, 5, 7, 9, 11
"""Fields of the footer, of a row group, and of a column and its metadata (parquet.thrift)."""
_ENCRYPTED: Final = {8, 9}
_MOST_TYPE: Final = 7
_CODECS: Final = range(8)
_PAGES: Final = {0: 5, 2: 7, 3: 8}
"""The field of a page header for each page type: data, dictionary, data version 2."""
_DICTIONARY_PAGE: Final = 2
_LONGEST: Final = 200
"""Longest excerpt of another library's message, in characters."""


@dataclass(frozen=True)
class SavedTable:
    """A table and its header as text."""

    rows: pl.DataFrame
    header: str | None


def write(path: Path, table: pl.DataFrame, header: Mapping[str, Any] | None = None) -> None:
    """Write a Parquet file atomically, with `header` as JSON in its metadata; equal tables give equal bytes.

    Raises:
        OSError: The file cannot be written.
    """
    arrow = table.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    if header is not None:
        arrow = arrow.replace_schema_metadata({METADATA_KEY: json.dumps(header)})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd", write_page_checksum=True)
    data = buffer.getvalue()
    start = _footer_start(data)
    pages, footer = data[:start] + _MARK, data[start:]
    atomic.remove_leftovers(path)
    with atomic.AtomicFile(path) as file:
        file.write(pages + _digest(pages, footer) + footer)


def read(path: Path, remedy: str) -> SavedTable:
    """Read a table that `write` or an earlier version wrote.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message: "evaluate again with another --out".

    Raises:
        InputError: The file cannot be read, is not a Parquet file, or is damaged.
    """
    with _refused(path, remedy):
        data = path.read_bytes()
        if data[: len(_MAGIC)] != _MAGIC:
            raise InputError(f"{path} is not a Parquet file: {remedy}")
        _check_digest(data)
        _check_parts(data)
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            arrow = file.read()
            arrow.validate(full=True)
            header = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
        rows = pl.from_arrow(arrow)
        assert isinstance(rows, pl.DataFrame)
        return SavedTable(rows, None if header is None else header.decode())


@contextmanager
def _refused(path: Path, remedy: str) -> Iterator[None]:
    """Convert the errors that pyarrow and polars raise on damaged files to InputError."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        raise InputError(_damaged(path, error, remedy)) from error
    except MemoryError as error:
        if not isinstance(error, pa.ArrowException):
            raise
        raise InputError(_damaged(path, error, remedy)) from error
    except (Exception, PanicException) as error:
        raise InputError(_damaged(path, error, remedy)) from error


def _damaged(path: Path, error: BaseException, remedy: str) -> str:
    return f"{path} is damaged ({quoted_error(error, _LONGEST)}). {remedy}"


def _footer_start(data: bytes) -> int:
    length = int.from_bytes(data[-_TAIL:-4], "little")
    start = len(data) - _TAIL - length
    if data[-len(_MAGIC) :] != _MAGIC or start < len(_MAGIC):
        raise ValueError("no Parquet footer at its end")
    return start


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _check_digest(data: bytes) -> None:
    mark = data.rfind(_MARK)
    if mark < 0:  # from an earlier version or another program
        return
    start, view = mark + len(_MARK), memoryview(data)
    if view[start : start + _DIGEST] != _digest(view[:start], view[start + _DIGEST :]):
        raise ValueError("its SHA-256 differs from the one that it was written with")


def _check_parts(data: bytes) -> None:
    """Compare rows, values and bytes in the footer with the pages, without decoding any.

    pyarrow aborts the process on an unknown codec or type.
    """
    start = _footer_start(data)
    most = _FEW + _RATIO * len(data)
    footer, _ = read_struct(memoryview(data)[start : len(data) - _TAIL], 0, _MOST_PARTS)
    rows, decoded = 0, 0
    for group in footer.get(_GROUPS, ()):
        rows += group[_GROUP_ROWS]
        for column in group[_GROUP_COLUMNS]:
            about = column[_ABOUT]
            if (
                column.keys() & _ENCRYPTED
                or about[_CODEC] not in _CODECS
                or not 0 <= about[_TYPE] <= _MOST_TYPE
                or not 0 <= group[_GROUP_ROWS] <= about[_VALUES] <= most
            ):
                raise ValueError("its footer does not describe a table")
            decoded += _decoded_bytes(memoryview(data)[:start], about)
            if decoded > most:
                raise ValueError(f"its pages claim more than {most} bytes")
    if rows != footer[_ROWS]:
        raise ValueError(f"it claims {footer[_ROWS]} rows, but its row groups have {rows}")


def _decoded_bytes(data: memoryview, about: Mapping[int, Any]) -> int:
    """Decoded size of the pages of a column according to their headers."""
    starts = (about.get(number, 0) for number in (_START, _DICTIONARY))
    at = min((start for start in starts if start > 0), default=0)  # a column without values has no data pages
    end = at + about[_SIZE]
    values, decoded = 0, 0
    if about[_SIZE] and (at < len(_MAGIC) or not at <= end <= len(data)):
        raise ValueError("a column is outside of the file")
    data = data[:end]
    while at < end:
        header, at = read_struct(data, at, _MOST_PAGE_PARTS)
        number = header[_PAGES[header[1]]][1]
        if min(header[2], header[3], number) < 0:
            raise ValueError("a page has a negative size")
        at, decoded = at + header[3], decoded + header[2]
        values += 0 if header[1] == _DICTIONARY_PAGE else number
    if at != end or values != about[_VALUES]:
        raise ValueError(f"its pages have {values} of {about[_VALUES]} values")
    return decoded
