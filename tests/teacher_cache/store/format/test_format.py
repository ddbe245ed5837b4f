"""The header, its segments and digests; shard files; and hash lookup."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import StoreHeader
from medalign.teacher_cache.store.format.header import default_shard_rows, plan_digest
from medalign.teacher_cache.store.format.profiles import PROFILES, row_arrays
from medalign.teacher_cache.store.format.shard_file import ShardWriter, checked, index_bytes, parse_index
from medalign.teacher_cache.store.records.index import HashColumn
from stores import store_header


def test_fingerprint_changes_with_content_and_not_with_the_plan():
    header = store_header(range(9))
    same = {
        "segments": (3, 1), "shard_rows": 2, "plan_sha256": "0" * 64, "data_use": "private", "batch_size": 9,
        "threads": 8, "tolerance": 0.1, "title": "t", "licence": "l", "created_by": "other",
    }  # fmt: skip
    assert header.model_copy(update=same).fingerprint == header.fingerprint
    different = {
        "teacher": "other",
        "weights_sha256": "1" * 64,
        "features": "final-norm",
        "dtype": "bfloat16",
        "geometry": "crop",
        "grid": PatchGrid(9, 4),
        "native_grid": PatchGrid(9, 16),
        "profile": "int8",
        "width": 95,
        "image_size": 97,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "hashing": "hmac-sha256:" + "0" * 16,
        "jpeg_scale": "reduced",
    }
    for name, value in different.items():
        assert header.model_copy(update={name: value}).fingerprint != header.fingerprint, name
    assert set(StoreHeader.model_fields) - set(same) - set(different) == {"format_version", "interpolation"}
    assert StoreHeader.model_validate_json(header.model_dump_json()) == header


@settings(max_examples=100, deadline=None)
@given(segments=st.lists(st.integers(1, 12), min_size=1, max_size=5), shard_rows=st.integers(1, 5))
def test_segments_begin_with_new_shards(segments, shard_rows):
    """Compared with filling the array row by row."""
    slots: list[int | None] = []
    for number, images in enumerate(segments):
        while len(slots) % shard_rows:
            slots.append(None)
        slots += [number] * images
    header = store_header(range(sum(segments)), segments=tuple(segments), shard_rows=shard_rows)
    assert header.rows == len(slots)
    assert header.shards == -(-len(slots) // shard_rows)
    assert header.planned == sum(segments)
    ranges = [header.shard_range(shard) for shard in range(header.shards)]
    assert [row for rows in ranges for row in rows] == [row for row, slot in enumerate(slots) if slot is not None]
    assert all(row // shard_rows == shard for shard, rows in enumerate(ranges) for row in rows)
    for shard in (-1, header.shards):
        with pytest.raises(IndexError, match=rf"shard {shard} does not exist: the store has {header.shards} shards"):
            header.shard_range(shard)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_store_of_any_size_has_fewer_than_a_thousand_objects(profile):
    arrays = len(row_arrays(profile, PatchGrid(14, 14), PatchGrid(24, 24), 768))
    for rows in (1, 400, 19_200, 377_110, 5_000_000):
        shard_rows = default_shard_rows(rows, arrays)
        assert -(-rows // shard_rows) * (arrays + 1) + 25 < 1000
        assert shard_rows >= 64


def test_the_plan_has_an_order():
    assert plan_digest(["a", "b"]) != plan_digest(["b", "a"])


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(max_examples=60, deadline=None)
@given(
    stored=st.lists(DIGESTS, max_size=20),
    same_prefix=st.lists(st.tuples(st.sampled_from(["0" * 60, "f" * 60]), st.text("0f", min_size=4, max_size=4))),
    others=st.lists(DIGESTS, max_size=5),
)
def test_hash_column_finds_what_a_list_finds(stored, same_prefix, others):
    stored = stored + [start + end for start, end in same_prefix]
    column = HashColumn(np.frombuffer(bytes.fromhex("".join(stored)), np.uint8).reshape(-1, 32))
    assert len(column) == len(stored)
    assert [column.hex(position) for position in range(len(stored))] == stored
    for digest in [*stored, *others, "0" * 64, "f" * 64, "short", "F" * 64]:
        assert column.find(digest) == (stored.index(digest) if digest in stored else None)


@settings(max_examples=30, deadline=None)
@given(chunks=st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=9)), max_size=6), spare=st.integers(0, 2))
def test_shards_round_trip(tmp_path_factory, chunks, spare):
    path = tmp_path_factory.mktemp("shard") / "c" / "0"
    count = len(chunks) + spare
    writer = ShardWriter(path, count)
    for chunk in chunks:
        if chunk is None:
            writer.skip()
        else:
            writer.append(chunk)
    assert not path.exists(), "the name appears when the file is whole"
    record = writer.close()
    data = path.read_bytes()
    assert record.bytes == len(data)
    end = len(data) - index_bytes(count)
    index = parse_index(bytearray(data[end:]), count, end, "here", (5, 13))
    for position in range(count):
        offset, length = (int(value) for value in index[position])
        expected = chunks[position] if position < len(chunks) else None
        if expected is None:
            assert offset == length == 2**64 - 1
        else:
            stored = bytearray(data[offset : offset + length])
            assert bytes(checked(stored, len(expected) + 4)[0]) == expected
            with pytest.raises(ValueError, match="is truncated: it has"):
                checked(stored[:-1], len(expected) + 4)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(min_size=1, max_size=40), flip=st.integers(0, 10_000))
def test_any_flipped_bit_of_a_chunk_is_detected(tmp_path_factory, data, flip):
    path = tmp_path_factory.mktemp("shard") / "0"
    writer = ShardWriter(path, 1)
    writer.append(data)
    writer.close()
    stored = bytearray(path.read_bytes()[: len(data) + 4])
    bit = flip % (len(stored) * 8)
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="its crc32c does not match"):
        checked(stored, len(stored))


def test_an_aborted_shard_leaves_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "0", 2)
    writer.append(b"12345")
    writer.abort()
    assert list(tmp_path.iterdir()) == []
