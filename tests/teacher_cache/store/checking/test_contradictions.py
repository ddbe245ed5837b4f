"""Files of a store that contradict one another: which rows are lost, and which file is trusted."""

import json
import shutil
from pathlib import Path

import pytest
from forgeries import edit_summary, write_table
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.header import plan_digest
from medalign.teacher_cache.store.records.ledger import FailureRecord
from medalign.teacher_cache.store.writing import adoption
from medalign.teacher_cache.store.writing.adoption import adopt
from medalign.teacher_cache.store.writing.writer import StoreWriter
from pyarrow import parquet
from stores import name_of, store_header, write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three shards of four rows; row 5 failed."""
    return write_store(tmp_path_factory.mktemp("whole") / "s.zarr", range(12), failing=[5])


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def texts(store: Path) -> list[str]:
    return [str(problem) for problem in verify(store).problems]


def test_data_in_the_row_of_a_failed_image_is_a_problem(tmp_path):
    names = [name_of(image) for image in range(4)]
    header = store_header(range(4), plan_sha256=plan_digest(names))
    writer = StoreWriter.create(tmp_path / "s.zarr", header, names)
    source = open_store(write_store(tmp_path / "source.zarr", range(4)))
    with RunLock(writer.path):
        shard = writer.begin(0)
        for position, row in enumerate(source.index_columns(("image_hash", "pixel_hash", "sha256")).to_pylist()):
            (stored,) = source.stored_rows([position])
            if position != 3:
                shard.append_stored(stored.chunks, size=(30, 20), max_abs_dS=0.0, **row)
                continue
            for file, chunk in zip(shard._files, stored.chunks, strict=True):
                file.append(chunk)
            shard._failures.append(FailureRecord(row=next(shard._rows), image_hash=names[3], reason="no image"))
        shard.commit()
        writer.finish()
    problems = verify(writer.path).problems
    assert {problem.what for problem in problems} == {"has data, although the ledger says that the image failed"}
    assert [(problem.key, problem.rows) for problem in problems] == [("E_v/c/0/0/0", (3,)), ("E_a/c/0/0", (3,))]


def test_unlisted_files_are_named_in_order(copy):
    manifest = copy / "manifest-sha256.txt"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if "/c/" not in line))
    (text,) = texts(copy)
    assert "does not list E_a/c/0/0, E_a/c/1/0, E_a/c/2/0 (6 in total)" in text


def change_reason(store: Path, reason: str) -> Path:
    """Change why an image of shard 1 failed, in the record of the shard."""
    record = sorted((store / "ledger").glob("0*.json"))[1]
    fields = json.loads(record.read_text())
    fields["failures"][0]["reason"] = reason
    record.write_text(json.dumps(fields))
    return record


def test_a_record_that_neither_manifest_nor_index_confirms_is_not_restored(copy):
    """The record and the failures table were changed, each in another way, and both parse."""
    change_reason(copy, "changed")
    table = parquet.read_table(copy / "failures.parquet")
    rows = [{**row, "reason": "changed again"} for row in table.to_pylist()]
    write_table(type(table).from_pylist(rows, table.schema), copy / "failures.parquet")
    (problem,) = [problem for problem in verify(copy).problems if problem.key.startswith("ledger/")]
    assert problem.what == "does not match manifest-sha256.txt"
    assert problem.rows == (4, 5, 6, 7), "nothing says what these rows are"


def test_a_record_that_only_the_index_confirms_is_restored(copy):
    record = change_reason(copy, "changed")
    (problem,) = verify(copy).problems
    assert (problem.key, problem.rows) == (record.relative_to(copy).as_posix(), ())


def test_an_extension_that_was_interrupted_before_the_index_is_reported(copy, tmp_path, monkeypatch):
    """The header has more shards than the index."""
    side = write_store(tmp_path / "side.zarr", range(12, 17))

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adoption, "replace_unreadable", cut)
    with RunLock(copy), pytest.raises(KeyboardInterrupt):
        adopt(copy, list(map(name_of, range(12))), side, list(map(name_of, range(12, 17))))
    sorted((copy / "ledger").glob("0*.json"))[-1].unlink()
    assert any("index.parquet" in text for text in texts(copy))


def test_a_header_that_only_the_fingerprint_confirms_is_trusted(copy):
    """Header and index were changed after the manifest, so only the fingerprint in the index says which is right."""
    group = copy / "zarr.json"
    group.write_text(group.read_text() + "\n")
    edit_summary(copy, lambda summary: summary["header"].update(mean=[0.25, 0.5, 0.5]))
    assert "index.parquet: its copy of the header differs from zarr.json: mean" in texts(copy)
