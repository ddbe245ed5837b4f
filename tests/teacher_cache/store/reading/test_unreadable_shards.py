"""Shard files that cannot be read while training are damage, with the reason of the system."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from medalign.teacher_cache.store import DamagedStore, open_store
from medalign.teacher_cache.store.access import store_files
from stores import name_of, write_store


@pytest.fixture
def store(tmp_path) -> Path:
    """Two shards of E_v and E_a."""
    return write_store(tmp_path / "s.zarr", range(6))


@pytest.mark.parametrize("opened", [False, True], ids=["index of the shard", "row"])
def test_a_disk_that_cannot_be_read_is_reported(opened, store, monkeypatch):
    reader = open_store(store)
    if opened:
        reader.read([name_of(0)])

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store_files.os, "preadv", fails)
    with pytest.raises(DamagedStore, match=f"{store} cannot be read: .*Input/output error") as raised:
        reader.read([name_of(1)])
    assert isinstance(raised.value.__cause__, OSError)
    monkeypatch.undo()
    assert len(reader.read([name_of(1)]).E_a) == 1, "the next read succeeds"


def test_a_file_in_the_place_of_a_folder_is_reported(store):
    reader = open_store(store)
    shutil.rmtree(store / "E_v/c/0/0")
    (store / "E_v/c/0/0").touch()
    with pytest.raises(DamagedStore, match=r"cannot be read: .*Not a directory.*E_v/c/0/0/0"):
        reader.read([name_of(1)])


def test_missing_files_are_named_once_each_and_at_most_three(store):
    reader = open_store(store)
    (store / "E_a/c/1/0").unlink()
    with pytest.raises(DamagedStore, match=rf": E_a/c/1/0 of {store} is missing|^E_a/c/1/0 of {store} is missing"):
        reader.read([name_of(0), name_of(4), name_of(5)])
    for file in ("E_v/c/0/0/0", "E_v/c/1/0/0", "E_a/c/0/0"):
        (store / file).unlink()
    with pytest.raises(DamagedStore) as raised:
        open_store(store).read([name_of(4), name_of(0), name_of(5)])
    assert str(raised.value).count("/c/") == 3
    assert f" of {store} is missing, although the store is finished. " in str(raised.value)
