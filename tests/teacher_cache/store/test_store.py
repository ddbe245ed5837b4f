"""Reading a store: by hash, in batches, with stock zarr, in other processes; and errors."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import zarr
from medalign.errors import StoreError
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import interpolate_patches
from medalign.teacher_cache.store import DamagedStore, HashKey, MissingTeacherRow, UnfinishedStore, open_store
from medalign.teacher_cache.store.format.profiles import PROFILES, has_patches
from medalign.teacher_cache.store.records.index import write_plan
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.store.store_errors import AlteredStore
from stores import name_of, pixels_of, teacher_output, write_store

GOOD = [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Nine images in three shards; image 4 failed, one file was unreadable."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    return write_store(path, range(9), failing=[4], unreadable=["PermissionError"], shard_rows=3)


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def edit_header(store: Path, **changes) -> None:
    file = store / "zarr.json"
    content = json.loads(file.read_bytes())
    content["attributes"]["medalign"].update(changes)
    file.write_text(json.dumps(content))


def test_rows_match_the_teachers_output(whole):
    store = open_store(whole)
    for image in GOOD:
        patches, attention = teacher_output([image], store.header)
        target = store[name_of(image)]
        expected = interpolate_patches(patches, store.header.native_grid, store.header.grid)[0]
        torch.testing.assert_close(target.E_v, expected, rtol=2**-11, atol=1e-7)
        heat = interpolate_patches(attention[..., None], store.header.native_grid, store.header.grid)[0, :, 0]
        torch.testing.assert_close(target.E_a, heat, rtol=0, atol=0)


@pytest.mark.parametrize("profile", PROFILES)
def test_data_already_read_does_not_change_with_the_files(tmp_path, profile):
    native = PatchGrid(4, 4)
    path = write_store(tmp_path / "s.zarr", range(4), profile=profile, grid=native, native_grid=native)
    target = open_store(path)[name_of(1)]
    before = [None if values is None else values.clone() for values in (target.E_v, target.S, target.E_a)]
    for file in path.glob("*/c/**/*"):
        if file.is_file():
            with file.open("rb+") as opened:  # the same file, which may be memory-mapped
                opened.write(bytes(file.stat().st_size))
    for values, kept in zip((target.E_v, target.S, target.E_a), before, strict=True):
        assert values is kept is None or torch.equal(values, kept)


def test_stock_zarr_reads_the_same_values(whole):
    store, group = open_store(whole), zarr.open_group(str(whole), mode="r")
    for image in GOOD:
        row, target = store.row(name_of(image)), store[name_of(image)]
        np.testing.assert_array_equal(group["E_v"][row].astype(np.float32), target.E_v.numpy())
        np.testing.assert_array_equal(group["E_a"][row], target.E_a.numpy())
    assert group["E_v"].dtype == np.float16
    assert np.isnan(group["E_v"][4]).all(), "the failed image's row"
    assert np.isnan(group["E_a"][4]).all()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("grid", [PatchGrid(4, 4), PatchGrid(3, 3)], ids=str)
def test_every_profile_is_standard_zarr_and_reads_back(tmp_path, profile, grid):
    """Stock zarr reads the same stored values as the fast reader, compressed or not, also in wider shards."""
    store = open_store(write_store(tmp_path / "s.zarr", range(5), profile=profile, grid=grid, wide={1: "float32"}))
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    for image, folder, kept in ((2, "", profile), (4, "wide/float32/" if profile != "float32" else "", "float32")):
        position = store.position(name_of(image))
        (stored,) = store.stored_rows([position])
        assert stored.profile == store.profile_of(position) == kept
        for array, chunk in zip(store.header.arrays(kept), stored.chunks, strict=True):
            values = group[f"{folder}{array.name}"][store.row(name_of(image))]
            assert values.shape == array.shape
            if not array.compressed:
                assert values.tobytes() == bytes(chunk)
    targets = store.read([name_of(4), name_of(2)])
    patches, _ = teacher_output([4, 2], store.header)
    exact = torch.nn.functional.normalize(interpolate_patches(patches, PatchGrid(3, 3), grid), dim=-1)
    unit = torch.nn.functional.normalize(targets.E_v, dim=-1) if has_patches(profile) else None
    found = targets.S if unit is None else unit @ unit.transpose(1, 2)
    assert (targets.S is None) == has_patches(profile)
    bounds = store.index_columns(["max_abs_dS"]).column(0).to_pylist()
    for position, image in ((0, 4), (1, 2)):
        gap = (found[position] - exact[position] @ exact[position].T).abs().max()
        assert gap <= bounds[store.position(name_of(image))] + 1e-6


def test_batch_reads_keep_the_order_and_may_repeat(whole):
    store = open_store(whole)
    hashes = [name_of(image) for image in (7, 0, 7, 3)]
    targets = store.read(hashes)
    assert targets.E_v.shape == (4, 16, 8)
    for position, image_hash in enumerate(hashes):
        assert torch.equal(targets.E_v[position], store[image_hash].E_v)
        assert torch.equal(targets.E_a[position], store[image_hash].E_a)
    assert store.read([]).E_v.shape == (0, 16, 8)
    assert store.read([]).E_a.shape == (0, 16)


def test_look_up_by_file_hash_then_by_pixels(whole):
    store = open_store(whole)
    index = pl.read_parquet(whole / "index.parquet")
    assert index["image_hash"].to_list() == [name_of(image) for image in GOOD]
    assert store.row(name_of(6)) == store.row("0" * 64, pixels_of(6)) == index["row"][5] == 6
    assert torch.equal(store.read(["0" * 64], [pixels_of(6)]).E_v[0], store[name_of(6)].E_v)
    assert name_of(6) in store
    assert "0" * 64 not in store
    assert "short" not in store
    assert store.missing(["0" * 64, name_of(6)], [pixels_of(6), None]) == []
    assert store.missing(["0" * 64, name_of(6)]) == ["0" * 64]


def test_unknown_and_failed_images_raise_with_advice(whole):
    store = open_store(whole)
    with pytest.raises(MissingTeacherRow) as unknown:
        store.read([name_of(0), "c" * 64, "d" * 64])
    message = str(unknown.value)
    assert f"2 of 3 images have no row in {whole} (teacher random, 8 rows); first: cccccccccccc." in message
    assert f"medalign store extend {whole}" in message
    assert "re-encoded, resized or anonymized files are different images" in message
    with pytest.raises(MissingTeacherRow, match="failed during extraction: no image"):
        store[name_of(4)]
    assert store.failures == {name_of(4): "no image"}
    assert store.unreadable == ("PermissionError",)


def test_keyed_stores_require_their_key(tmp_path):
    key, other = HashKey(b"k" * 32), HashKey(b"o" * 32)
    path = write_store(tmp_path / "keyed.zarr", range(3), key=key)
    assert name_of(0) not in (path / "index.parquet").read_bytes().decode(errors="replace")
    index = pl.read_parquet(path / "index.parquet")
    assert not {*index["image_hash"], *index["pixel_hash"]} & {f(i) for i in range(3) for f in (name_of, pixels_of)}
    store = pickle.loads(pickle.dumps(open_store(path, key)))
    assert store.missing([name_of(1), "0" * 64], [None, pixels_of(2)]) == []
    assert store[name_of(1)].E_v.shape == (16, 8)
    with pytest.raises(StoreError, match=r"are keyed \(hmac-sha256:.*--hash-key FILE"):
        open_store(path)[name_of(1)]
    with pytest.raises(StoreError, match=f"are hmac-sha256:{key.key_id}, not hmac-sha256:{other.key_id}"):
        open_store(path, other)
    with pytest.raises(StoreError, match="do not pass a key"):
        open_store(write_store(tmp_path / "plain.zarr", range(2)), key)
    assert "k" * 8 not in repr(key)


def test_a_store_pickles_as_its_location(whole):
    store = pickle.loads(pickle.dumps(open_store(whole)))
    assert (store.header.rows, store.header.shards, len(store)) == (9, 3, 8)
    assert store.location == str(whole)
    assert store[name_of(0)].E_v.isfinite().all()
    assert len(pickle.dumps(store)) < 500


EVERY_START = os.environ.get("MEDALIGN_FULL_TESTS")
STARTS = [("fork", 0), ("fork", 1), ("fork", 4), ("spawn", 1), ("forkserver", 2)]
MATRIX = [(start, workers) for start in ("fork", "spawn", "forkserver") for workers in range(5)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(("start", "workers"), MATRIX if EVERY_START else STARTS)
def test_data_loader_workers_read_the_same(whole, start, workers):
    store = open_store(whole)
    hashes = [name_of(image) for image in GOOD]
    expected = store.read(hashes)  # the parent reads first, so that workers inherit a used store
    parallel = {"multiprocessing_context": start, "timeout": 60} if workers else {}
    loader = torch.utils.data.DataLoader(store, batch_size=None, sampler=hashes * 3, num_workers=workers, **parallel)
    seen = list(loader)
    assert len(seen) == 24
    for position, target in enumerate(seen):
        assert torch.equal(target.E_v, expected.E_v[position % 8])


def test_other_folders_are_rejected_with_a_specific_error(tmp_path, copy):
    with pytest.raises(StoreError, match=r"is not a teacher store: zarr\.json does not exist"):
        open_store(tmp_path)
    zarr.create_group(store=str(tmp_path / "foreign.zarr"), zarr_format=3)
    with pytest.raises(StoreError, match="is a Zarr group, but not a medalign teacher store"):
        open_store(tmp_path / "foreign.zarr")
    edit_header(copy, format_version=3)
    with pytest.raises(
        StoreError, match="has store format 3, but this medalign version reads up to 2: run `pip install --upgrade"
    ):
        open_store(copy)
    edit_header(copy, format_version=2, grid="six", width=-1, owner="me")
    with pytest.raises(StoreError, match=r"header of .* is invalid: grid: .*; width: .*; owner: "):
        open_store(copy)


def test_unfinished_stores_report_their_progress(copy):
    (copy / "manifest-sha256.txt").unlink()
    (copy / "ledger" / "000002.json").unlink()
    with pytest.raises(
        UnfinishedStore, match=r"was finished once but has no manifest.* `medalign store repair.*or get it again from"
    ):
        open_store(copy)
    write_plan(copy, read_header(copy), [name_of(image) for image in range(9)])  # as before it was finished
    with pytest.raises(UnfinishedStore, match=r"is unfinished: 2 of 3 shards are committed\. .* --resume"):
        open_store(copy)
    (copy / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(UnfinishedStore, match=r"is unfinished: 2 of 3 shards are committed\. .* --resume"):
        open_store(copy)


def test_array_metadata_must_match_the_header(copy):
    file = copy / "E_v/zarr.json"
    file.write_text(file.read_text().replace("16,\n    8", "16,\n    7", 1))
    with pytest.raises(StoreError, match=r"array E_v .* shape is \[9, 16, 7\], but should be \[9, 16, 8\]"):
        open_store(copy)


def test_an_index_of_another_store_is_rejected(copy):
    edit_header(copy, weights_sha256="f" * 64)
    with pytest.raises(AlteredStore, match=r"index\.parquet and zarr\.json .* do not match: .medalign store verify "):
        open_store(copy)


def test_a_swapped_shard_is_not_read_as_other_rows(copy):
    """Both shards are intact files of equal size; only the index identifies their rows."""
    one, two = copy / "E_v/c/0/0/0", copy / "E_v/c/2/0/0"
    first, second = one.read_bytes(), two.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second)
    two.write_bytes(first)
    store = open_store(copy)
    with pytest.raises(
        DamagedStore, match=r"row 0 of .* contains the bytes of another row.*store repair.*or get it again from"
    ):
        store[name_of(0)]
    assert store[name_of(5)].E_v.isfinite().all(), "shard 1 is untouched"
