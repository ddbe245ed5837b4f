"""The independent reader of examples/ reads what ours reads, from every profile."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.format.profiles import PROFILES
from medalign.teacher_cache.store.reading.rows import row_values
from stores import name_of, write_store

EXAMPLE = Path(__file__).parents[3] / "examples" / "read_store.py"


@pytest.mark.parametrize("profile", PROFILES)
def test_the_independent_reader_agrees(tmp_path, profile):
    path = write_store(tmp_path / "s.zarr", range(6), failing=[1], profile=profile, shard_rows=2, wide={1: "float32"})
    read_row = runpy.run_path(str(EXAMPLE))["read_row"]
    store = open_store(path)
    for image in (0, 2, 5):
        (stored,) = store.stored_rows([store.position(name_of(image))])
        found, arrays = read_row(str(path), name_of(image))
        assert found == stored.profile
        for name, values in row_values(stored).items():
            np.testing.assert_array_equal(arrays[name], values[0])
    with pytest.raises(KeyError, match="has no row"):
        read_row(str(path), name_of(1))
    (path / "E_a/c/0/0").unlink()
    if profile != "float32":
        with pytest.raises(ValueError, match="is damaged: it holds nothing"):
            read_row(str(path), name_of(0))
    (path / "manifest-sha256.txt").unlink()
    with pytest.raises(ValueError, match="is unfinished"):
        read_row(str(path), name_of(0))
