"""Numbers at the edges of what a record, a footer and a page header may have."""

import io
import json

import pytest
from medalign.teacher_cache.store.records.ledger import committed_shards, parse_record
from medalign.teacher_cache.store.records.parquet_guard import read_footer
from medalign.teacher_cache.store.records.thrift import ThriftError, read_struct
from medalign.teacher_cache.store.store_errors import DamagedStore

DIGEST = "0" * 64
IMAGE = {"row": 0, "image_hash": DIGEST, "pixel_hash": DIGEST, "width": 9, "height": 9}
IMAGE |= {"max_abs_dS": 0.0, "crc32c": 1, "sha256": DIGEST}
ENTRIES = {
    "files": {"key": "E_v/c/0/0/0", "bytes": 1, "sha256": DIGEST},
    "images": IMAGE,
    "failures": {"row": 0, "image_hash": DIGEST, "reason": "no image"},
}


def record(entries: str, name: str, number: int) -> bytes:
    """The record of shard 3, with this number in the only file, image or failure."""
    lists = {key: [values | {name: number} if key == entries else values] for key, values in ENTRIES.items()}
    return json.dumps({"version": 1, "shard": 3, "profile": "float16", "content_sha256": DIGEST} | lists).encode()


@pytest.mark.parametrize(
    ("entries", "name", "least", "largest"),
    [
        ("images", "row", 0, 2**62 - 1),
        ("images", "width", 1, 2**31 - 1),
        ("images", "height", 1, 2**31 - 1),
        ("images", "crc32c", 0, 2**32 - 1),
        ("failures", "row", 0, 2**62 - 1),
        ("files", "bytes", 1, 2**62 - 1),
    ],
)
def test_numbers_of_records_have_a_range(entries, name, least, largest):
    for number in (least, largest):
        (entry,) = getattr(parse_record(record(entries, name, number), 3, "here"), entries)
        assert getattr(entry, name) == number
    for number in (least - 1, largest + 1):
        with pytest.raises(DamagedStore, match=f"here is damaged: .*{name}"):
            parse_record(record(entries, name, number), 3, "here")


def test_values_may_lie_in_sixteen_structs():
    """Each begins with field 1, a struct; the innermost has an integer, zigzag 42."""
    found, end = read_struct(memoryview(b"\x1c" * 16 + b"\x15\x54" + bytes(17)), 0, 100)
    assert end == 35
    for _ in range(16):
        found = found[1]
    assert found == {1: 42}
    with pytest.raises(ThriftError):
        read_struct(memoryview(b"\x1c" * 17 + b"\x15\x54" + bytes(18)), 0, 100)


@pytest.mark.parametrize("kilobytes", [20, 1001, 1002])
def test_a_footer_may_have_ten_thousand_fields_and_one_for_each_thousand_bytes_of_the_file(kilobytes):
    """The footer is a list of that many booleans in field 1, which no Parquet file has, so it is read but refused."""
    most = 10_000 + kilobytes

    def read(elements: int) -> None:
        footer = b"\x19\xf1" + bytes([elements & 127 | 128, elements >> 7]) + b"\1" * elements + b"\0"
        tail = footer + len(footer).to_bytes(4, "little") + b"PAR1"
        read_footer(io.BytesIO(bytes(kilobytes * 1000 - len(tail)) + tail))

    with pytest.raises(KeyError):
        read(most - 1)  # the list itself is a field
    with pytest.raises(ThriftError, match="has too many fields or elements"):
        read(most)


def test_committed_shards_are_in_ascending_order(tmp_path):
    """A folder lists its files in the order of the file system, and names have more digits from shard 1,000,000."""
    shards = [1_000_000, 3, 20, 0, 7, 999_999, 11, 5, 2, 13, 64, 1, 12_345_678, 8]
    (tmp_path / "ledger").mkdir()
    for shard in shards:
        (tmp_path / "ledger" / f"{shard:06d}.json").touch()
    for name in ("unreadable.json", "000004.json.partial", "000006", ".000009.json", "-00010.json", "1e3.json"):
        (tmp_path / "ledger" / name).touch()
    assert committed_shards(tmp_path) == sorted(shards)
    assert committed_shards(tmp_path / "ledger") == []


def test_integers_have_at_most_ten_bytes():
    """The zigzag of -2^63 has 64 bits, seven in each byte."""
    found, _ = read_struct(memoryview(b"\x16" + b"\xff" * 9 + b"\x01\0"), 0, 9)
    assert found == {1: -(2**63)}
    with pytest.raises(ThriftError, match="has an integer of more than 64 bits"):
        read_struct(memoryview(b"\x16" + b"\x80" * 10 + b"\x01\0"), 0, 9)


def test_a_field_that_occurs_twice_is_refused():
    """Readers would disagree on which one counts. The second one gives its number in full, zigzag 1."""
    assert read_struct(memoryview(b"\x15\x02\x05\x04\x04\0"), 0, 9)[0] == {1: 1, 2: 2}
    with pytest.raises(ThriftError, match="has field 1 twice"):
        read_struct(memoryview(b"\x15\x02\x05\x02\x04\0"), 0, 9)


@pytest.mark.parametrize(
    "data", [b"", b"\x15", b"\x15\x80", b"\x15\x02", b"\x18\x03ab", b"\x18\x03abc", b"\x17" + bytes(7)]
)
def test_a_struct_that_ends_early_is_refused(data):
    with pytest.raises(ThriftError, match="ends early"):
        read_struct(memoryview(data), 0, 9)
