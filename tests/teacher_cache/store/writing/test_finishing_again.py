"""Finishing a finished store again hides no change of it."""

import pytest
from forgeries import rewrite_manifest
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.store.store_errors import AlteredStore
from medalign.teacher_cache.store.writing.closing import close_store
from stores import write_store


def test_an_index_that_is_none_although_the_manifest_lists_it(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(4))
    (store / "index.parquet").write_bytes(b"not an index")
    rewrite_manifest(store)
    with RunLock(store), pytest.raises(AlteredStore, match=r"cannot be finished again.*although its index matches"):
        close_store(store, read_header(store))
    assert (store / "index.parquet").read_bytes() == b"not an index"
