"""What is believed of a store whose index is lost, and how many shards a header may claim."""

import json
import shutil
from pathlib import Path

import pytest
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.partial_view import StoreView, _require_plausible_shards, rebuild_record
from medalign.teacher_cache.store.checking.restore import damaged_shards
from medalign.teacher_cache.store.store_errors import DamagedStore
from medalign.teacher_cache.store.store_problem import Problem
from stores import store_header, write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three shards of four rows."""
    return write_store(tmp_path_factory.mktemp("whole") / "s.zarr", range(12))


@pytest.mark.parametrize("rows", [3, 4])
def test_without_an_index_a_changed_record_is_used_if_it_does_not_contradict_the_header(whole, tmp_path, rows):
    """The first record is written in another layout, so its digest differs, with all of its rows or all but one."""
    store = Path(shutil.copytree(whole, tmp_path / "copy.zarr"))
    (store / "index.parquet").unlink()
    record = store / "ledger" / "000000.json"
    values = json.loads(record.read_bytes())
    record.write_text(json.dumps(values | {"images": values["images"][:rows]}, indent=1))
    view = StoreView(LocalFiles(store))
    assert list(view.records) == ([0, 1, 2] if rows == 4 else [1, 2])
    assert {(problem.kind, problem.shard) for problem in view.problems if problem.kind == "record"} == {("record", 0)}


def test_a_header_may_claim_a_thousand_shards_more_than_twice_those_that_are_known(whole):
    view = StoreView(LocalFiles(whole))
    view.header = store_header([0], segments=(1006,), shard_rows=1)
    _require_plausible_shards(view)
    view.header = store_header([0], segments=(1007,), shard_rows=1)
    with pytest.raises(DamagedStore, match="plans 1007 shards, but its index, manifest and ledger have at most 3"):
        _require_plausible_shards(view)


def test_a_shard_is_recomputed_if_its_data_contradicts_its_record(whole, tmp_path):
    """A record that was lost and restored from the index is no reason."""
    intact = StoreView(LocalFiles(whole))
    problem = Problem(kind="record", key="ledger/000001.json", what="does not match its data", shard=1)
    assert damaged_shards(intact, [problem]) == [1]
    store = Path(shutil.copytree(whole, tmp_path / "copy.zarr"))
    (store / "ledger" / "000001.json").unlink()
    restored = StoreView(LocalFiles(store))
    assert [found.shard for found in restored.problems] == [1]
    assert damaged_shards(restored, restored.problems) == []


def test_only_shards_of_the_index_have_their_record_rebuilt(whole):
    view = StoreView(LocalFiles(whole))
    for shard in range(3):
        assert rebuild_record(view, shard) == view.records[shard]
    assert rebuild_record(view, 3) is None
