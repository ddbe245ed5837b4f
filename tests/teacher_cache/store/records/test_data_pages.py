"""Headers of Parquet's data pages: PageHeader in parquet.thrift, in Thrift's compact protocol."""

import io

import pyarrow as pa
import pytest
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.records.index import failures_table, read_columns
from medalign.teacher_cache.store.records.parquet_guard import (
    _ABOUT,
    _COLUMNS,
    _SIZE,
    _START,
    Limits,
    _column,
    _decoded_bytes,
    read_footer,
)
from pyarrow import parquet
from stores import store_header


def integer(value: int) -> bytes:
    """A small i32 field that follows the one before: zigzag, in one byte."""
    return bytes([0x15, value << 1 if value >= 0 else (-value << 1) - 1])


def page(decoded: int, encoded: int, values: int) -> bytes:
    """The header of a page of plain values, and its bytes."""
    about = integer(values) + integer(0) + integer(3) + integer(3) + b"\0"
    return integer(0) + integer(decoded) + integer(encoded) + b"\x2c" + about + b"\0" + bytes(max(encoded, 0))


def test_pages_are_added_up_and_may_be_empty():
    column = page(16, 9, 2) + page(0, 0, 0) + page(8, 5, 1)
    assert _decoded_bytes(memoryview(column), len(column), 3) == 24


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_a_negative_number_is_refused(numbers):
    column = page(16, 9, 2) + page(*numbers)
    with pytest.raises(ValueError, match="pages with an encoding that stores do not use"):
        _decoded_bytes(memoryview(column), len(column), 2)


@pytest.mark.parametrize(("rows", "length"), [(2, 0), (4, 0), (3, 1), (3, -1)])
def test_pages_have_as_many_values_and_bytes_as_the_column(rows, length):
    column = page(16, 9, 2) + page(8, 5, 1)
    with pytest.raises(ValueError, match="its pages have 3 values"):
        _decoded_bytes(memoryview(column), len(column) + length, rows)


def second_page(values: int, nulls: int, encoding: int, levels: int) -> bytes:
    """The header of a page of the second version, and its bytes: the lengths of the levels follow the encoding."""
    about = integer(values) + integer(nulls) + integer(values) + integer(encoding) + integer(levels) + integer(0)
    return integer(3) + integer(16) + integer(9) + b"\x5c" + about + b"\0\0" + bytes(9)


@pytest.mark.parametrize("levels", [0, 2, 6])
def test_pages_of_the_second_version_have_levels_of_any_length(levels):
    column = second_page(2, 1, 0, levels) + page(16, 9, 2)
    assert _decoded_bytes(memoryview(column), len(column), 4) == 32


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("encoding", [2, 3, 5, 8, 9])
def test_other_encodings_of_the_second_version_are_refused(encoding, levels):
    """Such as those by a dictionary or by differences, of which a few bytes are millions of values."""
    column = second_page(2, 1, encoding, levels)
    with pytest.raises(ValueError, match="pages with an encoding that stores do not use"):
        _decoded_bytes(memoryview(column), len(column), 2)


@pytest.mark.parametrize("encoding", [2, 5, 8])
def test_other_encodings_of_the_first_version_are_refused(encoding):
    plain = page(16, 9, 2)
    at = plain.index(integer(2) + integer(0) + integer(3)) + 2
    column = plain[:at] + integer(encoding) + plain[at + 2 :]
    with pytest.raises(ValueError, match="pages with an encoding that stores do not use"):
        _decoded_bytes(memoryview(column), len(column), 2)


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_pages_without_values_are_refused(kind):
    """Dictionaries and indexes."""
    column = integer(kind) + page(16, 9, 2)[2:]
    with pytest.raises(ValueError, match="pages with an encoding that stores do not use"):
        _decoded_bytes(memoryview(column), len(column), 2)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_tables_of_both_versions_of_pages_are_read(version, tmp_path):
    rows = [{"image_hash": "a" * 64, "reason": "no image", "row": 1}, {"image_hash": None, "reason": "x", "row": None}]
    table = failures_table([], []).from_pylist(rows, failures_table([], []).schema)
    options = {"data_page_version": version, "use_dictionary": False, "compression": "zstd"}
    parquet.write_table(table, tmp_path / "failures.parquet", **options)
    names = ["image_hash", "reason", "row"]
    found = read_columns(LocalFiles(tmp_path), "failures.parquet", names, store_header(range(2)))
    assert found.to_pylist() == rows


def test_a_footer_may_be_longer_than_the_part_that_is_read_first():
    table = pa.table({"a": [1, 2]}).replace_schema_metadata({"notes": "x" * 100_000})
    parquet.write_table(table, file := io.BytesIO(), compression="zstd", use_dictionary=False)
    metadata, groups = read_footer(file)
    assert (metadata.num_rows, len(groups)) == (2, 1)
    assert metadata.metadata[b"notes"] == b"x" * 100_000


@pytest.mark.parametrize("length", [-1, 13, 14])
def test_a_column_lies_inside_its_file(length):
    """A file of 12 bytes."""
    limits = Limits(schema=pa.schema([("a", pa.int64())]), rows=1, column_bytes=100)
    group = {_COLUMNS: [{_ABOUT: {_START: 4, _SIZE: length}}]}
    with pytest.raises(ValueError, match="column a is outside the file"):
        list(_column(io.BytesIO(bytes(12)), [group], 0, limits))
