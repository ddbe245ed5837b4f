"""Limits of small files at their exact values, and what is only seen in stores larger than those of other tests."""

import pyarrow as pa
import pytest
from medalign.progress import Silent
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.restore import damaged_shards
from medalign.teacher_cache.store.checking.verification import examine
from medalign.teacher_cache.store.records.index import _digests
from medalign.teacher_cache.store.records.ledger import (
    LONGEST_REASON,
    ImageRecord,
    read_unreadable,
    write_unreadable,
)
from medalign.teacher_cache.store.records.schemas import MOST_IMAGES, check_header
from medalign.teacher_cache.store.records.thrift import ThriftError, read_struct
from medalign.teacher_cache.store.store_errors import DamagedStore
from medalign.teacher_cache.store.store_problem import Problem
from pydantic import ValidationError
from stores import name_of, store_header, write_store


def image(**fields):
    values = {"row": 0, "image_hash": name_of(1), "pixel_hash": name_of(2), "width": 9, "height": 9}
    return ImageRecord(**values | {"max_abs_dS": 0.0, "crc32c": 1, "sha256": name_of(3)} | fields)


@pytest.mark.parametrize("fields", [{"row": MOST_IMAGES - 1}, {"width": 1, "height": 1}, {"width": 2**31 - 1}])
def test_images_of_every_size_have_a_record_in_a_store_of_any_size(fields):
    assert image(**fields).model_dump().items() >= fields.items()


@pytest.mark.parametrize("fields", [{"row": -1}, {"width": 0}, {"height": 2**31}])
def test_images_that_cannot_be_have_no_record(fields):
    with pytest.raises(ValidationError):
        image(**fields)


def test_the_longest_reason_can_be_read_again(tmp_path):
    (tmp_path / "ledger").mkdir()
    write_unreadable(tmp_path, ["x" * 2 * LONGEST_REASON, "y"])
    assert read_unreadable(tmp_path) == ["x" * LONGEST_REASON, "y"]


def test_means_below_a_million_are_valid():
    check_header(store_header([0], mean=(999_999.0, 0.0, 0.0)), "here")
    with pytest.raises(DamagedStore, match="mean or std"):
        check_header(store_header([0], mean=(1_000_001.0, 0.0, 0.0)), "here")


def test_a_part_of_a_column_of_digests_is_read_from_its_own_bytes(tmp_path):
    """Arrow keeps the bytes of the whole column in the buffer of a part."""
    names = [name_of(number) for number in range(5)]
    for start, count in ((0, 2), (1, 3), (3, 2)):
        found = _digests(pa.array(names).slice(start, count), LocalFiles(tmp_path), "image_hash")
        assert [bytes(row).hex() for row in found] == names[start : start + count]


@pytest.mark.parametrize("lengths", [(62, 66), (64, 62, 66), (64, 64, 0)])
def test_every_digest_has_its_own_length(lengths, tmp_path):
    """A longer one and a shorter one have as many bytes together as two digests."""
    with pytest.raises(DamagedStore, match="column sha256 has values that are not SHA-256 digests"):
        _digests(pa.array(["ab" * (length // 2) for length in lengths]), LocalFiles(tmp_path), "sha256")


@pytest.mark.parametrize("field", [b"\x13\x00", b"\x11", b"\x12", b"\x15\x00", b"\x18\x00", b"\x1c\x00"])
def test_every_field_counts_once(field):
    """Fields of one byte, true or false, count too: a dictionary has a hundred bytes for each."""
    data = memoryview(field * 5 + b"\x00")
    assert len(read_struct(data, 0, 5)[0]) == 5
    with pytest.raises(ThriftError, match="too many fields"):
        read_struct(data, 0, 4)


@pytest.mark.parametrize("element", [3, 5, 8])
def test_every_element_of_a_list_counts_once(element):
    data = memoryview(b"\x19" + bytes([4 << 4 | element]) + bytes(4) + b"\x00")
    assert len(read_struct(data, 0, 5)[0][1]) == 4
    with pytest.raises(ThriftError, match="too many fields"):
        read_struct(data, 0, 4)


def test_structs_may_be_nested_sixteen_times():
    found, end = read_struct(memoryview(b"\x1c" * 16 + bytes(17)), 0, 100)
    assert end == 33
    for _ in range(16):
        found = found[1]
    assert found == {}


def test_damaged_shards_are_in_ascending_order(tmp_path):
    """In a set, 8 comes before 1."""
    view, _ = examine(LocalFiles(write_store(tmp_path / "s.zarr", range(2))), quick=True, progress=Silent())
    problems = [Problem(kind="shard", key=f"c/{shard}", what="is damaged", shard=shard) for shard in (8, 1, 20)]
    assert damaged_shards(view, problems) == [1, 8, 20]
