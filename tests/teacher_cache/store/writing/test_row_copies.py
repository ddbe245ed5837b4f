"""Copied rows are the stored bytes: nothing is recomputed, and damage is not copied."""

from pathlib import Path

import pytest
import torch
from medalign.errors import StoreError
from medalign.teacher_cache.store import DamagedStore, open_store
from medalign.teacher_cache.store.writing.row_copies import About, RowsOf, copy_rows
from stores import name_of, write_store

PUBLIC = About(data_use="public")


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Eleven images in four shards; one shard is in float32, one has a failure."""
    return write_store(tmp_path / "mixed.zarr", range(11), failing=[9], wide={1: "float32"}, shard_rows=3)


def some(store, images) -> RowsOf:
    return RowsOf(store=store, positions=[store.position(name_of(image)) for image in images])


def rows_by_hash(store, columns=("image_hash", "pixel_hash", "width", "height", "max_abs_dS", "sha256")):
    return {row["image_hash"]: row for row in store.index_columns(columns).to_pylist()}


def test_copied_rows_are_the_same_rows(mixed, tmp_path):
    source = open_store(mixed)
    wanted = [10, 4, 0, 3, 7]  # 3 and 4 lie in the wide shard
    copy_rows([some(source, wanted)], [(name_of(9), "no image")], tmp_path / "copy.zarr", PUBLIC)
    copy = open_store(tmp_path / "copy.zarr")
    assert copy.fingerprint == source.fingerprint
    assert rows_by_hash(copy) == {name: row for name, row in rows_by_hash(source).items() if row["image_hash"] in
                                  {name_of(image) for image in wanted}}  # fmt: skip
    assert copy.failures == {name_of(9): "no image"}
    names = [name_of(image) for image in wanted]
    torch.testing.assert_close(copy.read(names).E_v, source.read(names).E_v, rtol=0, atol=0)
    profiles = {copy.profile_of(copy.position(name_of(image))) for image in (3, 4)}
    assert profiles == {"float32"}
    assert sum(copy.header.segments) == 6
    assert len(copy.header.segments) == 2, "each profile has its own shards"


def test_a_copy_of_everything_has_the_same_root_digest(mixed, tmp_path):
    source = open_store(mixed)
    everything = RowsOf(store=source, positions=range(len(source)))
    root = copy_rows([everything], list(source.failures.items()), tmp_path / "copy.zarr", PUBLIC)
    assert root == source.root_sha256


def test_rows_of_two_stores_join(tmp_path):
    one = open_store(write_store(tmp_path / "one.zarr", range(5)))
    two = open_store(write_store(tmp_path / "two.zarr", range(5, 8), tolerance=0.5))
    root = copy_rows([some(one, range(5)), some(two, range(5, 8))], [], tmp_path / "both.zarr", PUBLIC)
    assert root == open_store(write_store(tmp_path / "whole.zarr", range(8))).root_sha256


def test_damage_is_not_copied(mixed, tmp_path):
    source = open_store(mixed)
    shard = mixed / "E_v/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedStore, match="row 0 of E_v/c/0/0/0"):
        copy_rows([some(source, [0])], [], tmp_path / "copy.zarr", PUBLIC)
    assert not (tmp_path / "copy.zarr/manifest-sha256.txt").exists()


def test_an_interrupted_copy_resumes(mixed, tmp_path, monkeypatch):
    source, out = open_store(mixed), tmp_path / "copy.zarr"
    everything = RowsOf(store=source, positions=range(len(source)))
    failures = list(source.failures.items())
    monkeypatch.setattr("medalign.teacher_cache.store.writing.row_copies.default_shard_rows", lambda rows, arrays: 2)
    read, calls = type(source).stored_rows, []

    def stop_at_third(store, positions):
        calls.append(positions)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(store, positions)

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "stored_rows", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            copy_rows([everything], failures, out, PUBLIC)
    with pytest.raises(StoreError, match="2 of 6 shards"):
        copy_rows([everything], failures, out, PUBLIC)
    assert copy_rows([everything], failures, out, PUBLIC, resume=True) == source.root_sha256
