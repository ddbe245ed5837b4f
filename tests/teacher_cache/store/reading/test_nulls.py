"""Other writers of Parquet may leave out values or list other rows; a store has all values of its own images."""

import shutil
from pathlib import Path

import pytest
from forgeries import write_table
from medalign.teacher_cache.store import DamagedStore, open_store
from pyarrow import parquet
from stores import write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("whole") / "s.zarr", range(3))


@pytest.mark.parametrize("name", ["pixel_hash", "width", "height", "max_abs_dS", "sha256"])
def test_a_column_with_nulls_has_no_root_digest(name, whole, tmp_path):
    store = Path(shutil.copytree(whole, tmp_path / "copy.zarr"))
    assert open_store(store).recomputed_root() == open_store(store).root_sha256
    table = parquet.read_table(store / "index.parquet")
    rows = [row | {name: None} if row["row"] == 1 else row for row in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), store / "index.parquet")
    with pytest.raises(DamagedStore, match=rf"index\.parquet of .*: column {name} has nulls"):
        open_store(store).recomputed_root()


@pytest.mark.parametrize("row", [-5, 10**6])
def test_an_index_with_rows_that_the_store_does_not_have_has_no_root_digest(row, whole, tmp_path):
    store = Path(shutil.copytree(whole, tmp_path / "copy.zarr"))
    opened = open_store(store)
    table = parquet.read_table(store / "index.parquet")
    rows = [found | {"row": row} if found["row"] == 1 else found for found in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), store / "index.parquet")
    with pytest.raises(DamagedStore, match=r"index\.parquet of .* lists rows that the store does not have"):
        opened.recomputed_root()
