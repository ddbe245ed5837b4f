"""Headers of Parquet's data pages: PageHeader in parquet.thrift, in Thrift's compact protocol."""

import pytest
from medalign.teacher_cache.store.records.parquet_guard import _decoded_bytes


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
