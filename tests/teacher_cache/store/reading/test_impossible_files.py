"""The index names the profile and the file sizes of each shard; the header says which there can be."""

import shutil
from pathlib import Path

import pytest
from forgeries import edit_summary
from medalign.teacher_cache.store import DamagedStore, open_store
from stores import write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two shards; each has a file for E_v and one for E_a."""
    return write_store(tmp_path_factory.mktemp("whole") / "s.zarr", range(6))


@pytest.mark.parametrize("fields", [{"profile": "int8"}, {"bytes": [848]}, {"bytes": [848, 64, 64]}, {"bytes": []}])
def test_a_shard_with_files_that_its_profile_does_not_have_is_damage(fields, whole, tmp_path):
    store = Path(shutil.copytree(whole, tmp_path / "copy.zarr"))
    edit_summary(store, lambda summary: summary["shards"][1].update(fields))
    with pytest.raises(DamagedStore, match=r"index\.parquet of .* lists impossible files for shard 1"):
        open_store(store)
