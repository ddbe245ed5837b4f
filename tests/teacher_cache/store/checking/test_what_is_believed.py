"""Which files of a damaged store are believed: for its root digest, its index, a repair and a conversion."""

from collections.abc import Callable
from pathlib import Path

import pytest
from forgeries import version_1_store, write_table
from harms import contents
from medalign.errors import StoreError
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.format_conversion import convert
from medalign.teacher_cache.store.checking.verification import verify
from pyarrow import parquet


def edit_table(store: Path, name: str, change: Callable[[dict], dict]) -> None:
    table = parquet.read_table(store / name)
    write_table(type(table).from_pylist([change(row) for row in table.to_pylist()], table.schema), store / name)


def change_unreadable(store: Path) -> None:
    (store / "ledger/unreadable.json").write_text('["a link"]')


def change_record_and_failures(store: Path) -> None:
    record = store / "ledger/000001.json"
    record.write_text(record.read_text().replace("no image", "changed"))
    edit_table(store, "failures.parquet", lambda row: row | {"reason": "changed again"})


@pytest.mark.parametrize("damage", [change_unreadable, change_record_and_failures])
def test_a_root_digest_of_damaged_files_is_not_compared_with_the_expected_one(copy, damage):
    """They still parse, but match no digest; this is damage, not another store."""
    root = open_store(copy).root_sha256
    damage(copy)
    report = verify(copy, expected_root=root)
    assert report.root_sha256 is None
    assert report.problems
    assert "other root" not in {problem.kind for problem in report.problems}


def test_an_index_is_compared_with_the_records_that_are_known(copy):
    """The record of shard 1 is lost, and without failures.parquet it cannot be restored from the index."""
    (copy / "ledger/000001.json").unlink()
    (copy / "failures.parquet").unlink()
    problems = {problem.key: problem.rows for problem in verify(copy, quick=True).problems}
    assert problems == {"ledger/000001.json": (4, 5, 6, 7), "failures.parquet": ()}


def test_a_table_that_does_not_match_the_ledger_is_reported_with_the_rows_that_differ(copy):
    edit_table(copy, "index.parquet", lambda row: row | {"width": 7} if row["row"] in (3, 9) else row)
    (problem,) = [problem for problem in verify(copy, quick=True).problems if "ledger" in problem.what]
    assert (str(problem), problem.rows) == ("index.parquet, rows 3, 9: does not match the ledger", (3, 9))


def test_without_a_manifest_a_lost_record_is_restored_from_tables_without_problems(copy):
    """No image is needed."""
    original = contents(copy)
    (copy / "manifest-sha256.txt").unlink()
    (copy / "ledger/000001.json").unlink()
    report = repair(copy)
    assert (report.left, report.lacking) == ((), {})
    assert "ledger/000001.json" in report.restored
    assert contents(copy) == original


@pytest.mark.parametrize("damage", [None, b"", b"{"])
def test_a_lost_header_is_no_interrupted_conversion(tmp_path, damage):
    """Its copy in the index has format 1; converting the store would hide the damage."""
    store = version_1_store(tmp_path / "old.zarr")
    header = store / "zarr.json"
    header.unlink() if damage is None else header.write_bytes(damage)
    report = verify(store, quick=True)
    assert ({problem.key for problem in report.problems}, report.conversion_interrupted) == ({"zarr.json"}, False)
    before = contents(store)
    with pytest.raises(StoreError, match=r"cannot be converted: zarr\.json"):
        convert(store)
    assert contents(store) == before


@pytest.mark.parametrize(("version", "name"), [(1, "README.md"), (1, "croissant.json"), (2, "zarr.json")])
def test_a_file_in_other_words_is_no_interrupted_conversion(version, name, copy, tmp_path):
    """In format 1 the header is intact; in format 2 it says the same as the index, which is intact."""
    store = version_1_store(tmp_path / "old.zarr") if version == 1 else copy
    (store / name).write_text((store / name).read_text() + "\n")
    report = verify(store, quick=True)
    assert ({problem.key for problem in report.problems}, report.conversion_interrupted) == ({name}, False)
    before = contents(store)
    with pytest.raises(StoreError, match=f"cannot be converted: {name}"):
        convert(store)
    assert contents(store) == before
