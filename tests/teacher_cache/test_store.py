"""Reading a store: by hash, in batches, by stock zarr, in other processes; and what is refused."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import StoreError
from medalign.teacher_cache.geometry import PatchGrid
from medalign.teacher_cache.store import (
    DamagedStore,
    MissingTeacherRow,
    StoreHeader,
    UnfinishedStore,
    open_store,
)
from medalign.teacher_cache.store.format import plan_digest, read_header, root_digest
from medalign.teacher_cache.store.index import HashColumn
from medalign.teacher_cache.store.shards import ShardReader, ShardWriter


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def edit_header(store: Path, **changes) -> None:
    file = store / "zarr.json"
    content = json.loads(file.read_bytes())
    content["attributes"]["medalign"].update(changes)
    file.write_text(json.dumps(content))


def test_stock_zarr_reads_the_same_values(finished, make_images):
    store, group = open_store(finished), zarr.open_group(str(finished), mode="r")
    for source in make_images(8):
        row, target = store.row(source.image_hash), store[source.image_hash]
        np.testing.assert_array_equal(group["E_v"][row].astype(np.float32), target.E_v.numpy())
        np.testing.assert_array_equal(group["E_a"][row], target.E_a.numpy())
    assert group["E_v"].dtype == np.float16
    assert np.isnan(group["E_v"][4]).all(), "the failed image's row"
    assert np.isnan(group["E_a"][4]).all()


def test_batch_reads_keep_the_order_and_may_repeat(finished, make_images):
    store = open_store(finished)
    hashes = [make_images(8)[i].image_hash for i in (6, 0, 6, 3)]
    targets = store.read(hashes)
    assert targets.E_v.shape == (4, 36, 96)
    for position, image_hash in enumerate(hashes):
        assert torch.equal(targets.E_v[position], store[image_hash].E_v)
        assert torch.equal(targets.E_a[position], store[image_hash].E_a)
    assert store.read([]).E_v.shape == (0, 36, 96)


def test_look_up_by_file_hash_then_by_pixels(finished, make_images):
    store = open_store(finished)
    index = pl.read_parquet(finished / "index.parquet")
    source, pixel_hash = make_images(8)[5], index["pixel_hash"][5]
    assert store.row(source.image_hash) == store.row("0" * 64, pixel_hash) == index["row"][5] == 6
    assert torch.equal(store.read(["0" * 64], [pixel_hash]).E_v[0], store[source.image_hash].E_v)
    assert source.image_hash in store
    assert "0" * 64 not in store
    assert "short" not in store
    assert store.missing(["0" * 64, source.image_hash], [pixel_hash, None]) == []
    assert store.missing(["0" * 64, source.image_hash]) == ["0" * 64]


def test_unknown_and_failed_images_raise_with_what_to_do(finished, make_images, truncated):
    store = open_store(finished)
    known = make_images(8)[0].image_hash
    with pytest.raises(MissingTeacherRow) as unknown:
        store.read([known, "c" * 64, "d" * 64])
    message = str(unknown.value)
    assert f"2 of 3 images have no row in {finished} (teacher phantom-tiny, 8 rows); first: cccccccccccc." in message
    assert "medalign teacher extract --teacher phantom-tiny" in message
    with pytest.raises(MissingTeacherRow, match="failed when the store was made: OSError: image file is truncated"):
        store[truncated.image_hash]


def test_header_says_everything_and_pickles_as_a_path(finished, make_images):
    store = pickle.loads(pickle.dumps(open_store(finished)))
    header = store.header
    assert (header.teacher, header.features, header.geometry) == ("phantom-tiny", "last-block", "pad")
    assert (header.grid, header.native_grid, header.width) == (PatchGrid(6, 6), PatchGrid(12, 12), 96)
    assert (header.rows, header.shards, len(store)) == (9, 3, 8)
    assert store.fingerprint == header.fingerprint
    assert store[make_images(1)[0].image_hash].E_v.isfinite().all()
    assert len(pickle.dumps(store)) < 500


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers_read_the_same(finished, make_images, start):
    store = open_store(finished)
    hashes = [source.image_hash for source in make_images(8)]
    expected = store.read(hashes)
    loader = torch.utils.data.DataLoader(
        store, batch_size=None, sampler=hashes, num_workers=1, multiprocessing_context=start
    )
    for position, target in enumerate(loader):
        assert torch.equal(target.E_v, expected.E_v[position])


def test_other_folders_are_refused_by_what_they_are(tmp_path, copy):
    with pytest.raises(StoreError, match=r"is not a teacher store: zarr\.json does not exist"):
        open_store(tmp_path)
    zarr.create_group(store=str(tmp_path / "foreign.zarr"), zarr_format=3)
    with pytest.raises(StoreError, match="is a Zarr group, but not a teacher store of medalign"):
        open_store(tmp_path / "foreign.zarr")
    edit_header(copy, format_version=2)
    with pytest.raises(StoreError, match="has store format 2; this medalign reads up to 1: pip install --upgrade"):
        open_store(copy)
    edit_header(copy, format_version=1, grid="six", width=-1, owner="me")
    with pytest.raises(StoreError, match=r"header of .* is not valid: grid: .*; width: .*; owner: "):
        open_store(copy)


def test_unfinished_stores_say_how_far_they_are(copy):
    (copy / "manifest-sha256.txt").unlink()
    (copy / "ledger" / "000002.json").unlink()
    with pytest.raises(UnfinishedStore, match=r"is unfinished: 2 of 3 shards are committed\. .* --resume"):
        open_store(copy)


def test_array_metadata_must_match_the_header(copy):
    edit_header(copy, width=95)
    with pytest.raises(StoreError, match=r"array E_v .* shape is \[9, 36, 96\] and should be \[9, 36, 95\]"):
        open_store(copy)


def test_an_index_of_another_store_is_refused(copy):
    edit_header(copy, weights_sha256="f" * 64)
    with pytest.raises(DamagedStore, match=r"index\.parquet belongs to another store"):
        open_store(copy)


def test_fingerprint_changes_with_content_and_not_with_the_plan(finished):
    header = read_header(finished)
    same = {"rows": 3, "shard_rows": 2, "plan_sha256": "0" * 64, "data_use": "public", "created_by": "other"}
    assert header.model_copy(update=same).fingerprint == header.fingerprint
    for name, value in {
        "teacher": "other",
        "weights_sha256": "1" * 64,
        "features": "final-norm",
        "dtype": "bfloat16",
        "geometry": "crop",
        "grid": PatchGrid(9, 4),
        "native_grid": PatchGrid(9, 16),
        "width": 95,
        "image_size": 97,
        "mean": (0.0, 0.0, 0.0),
    }.items():
        assert header.model_copy(update={name: value}).fingerprint != header.fingerprint, name
    assert StoreHeader.model_validate_json(header.model_dump_json()) == header


def test_root_digest_ignores_order_and_notices_the_rest():
    rows = [("a", "1"), ("b", "2")]
    assert root_digest("f", rows, ["c"]) == root_digest("f", rows[::-1], ["c"])
    others = [("g", rows, ["c"]), ("f", rows[:1], ["c"]), ("f", [("a", "2"), ("b", "1")], ["c"]), ("f", rows, [])]
    assert root_digest("f", rows, ["c"]) not in {root_digest(*other) for other in others}
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
    column = HashColumn(np.frombuffer("".join(stored).encode(), np.uint8).reshape(-1, 64))
    assert len(column) == len(stored)
    for digest in [*stored, *others, "0" * 64, "f" * 64, "short"]:
        assert column.find(digest) == (stored.index(digest) if digest in stored else None)


@settings(max_examples=30, deadline=None)
@given(chunks=st.lists(st.one_of(st.none(), st.binary(min_size=5, max_size=5)), max_size=6), spare=st.integers(0, 2))
def test_shards_round_trip(tmp_path_factory, chunks, spare):
    path = tmp_path_factory.mktemp("shard") / "c" / "0"
    count = len(chunks) + spare
    writer = ShardWriter(path, count)
    for chunk in chunks:
        writer.append(chunk)
    assert not path.exists(), "the name appears when the file is whole"
    record = writer.close()
    assert record.bytes == path.stat().st_size
    reader = ShardReader(path, count)
    assert [reader.read(i, 5) for i in range(count)] == [*chunks, *[None] * spare]
    if any(chunk is not None for chunk in chunks):
        position = next(i for i, chunk in enumerate(chunks) if chunk is not None)
        with pytest.raises(DamagedStore, match="has 9 bytes, not 10"):
            reader.read(position, 6)


def test_an_aborted_shard_leaves_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "0", 2)
    writer.append(b"12345")
    writer.abort()
    assert list(tmp_path.iterdir()) == []
