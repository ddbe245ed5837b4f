"""No flipped bit of a table outside of a store changes rows or header without a word, or ends the process."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flipped_tables import FILES, IDS, RUN, make_tables
from medalign.errors import InputError
from medalign.pipeline.data import saved_tables
from medalign.pipeline.data.importers.image_folders.embedded_images import parquet_files
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.evaluation.scoring import read_answers
from medalign.student.file_errors import reading
from polars.exceptions import PanicException

SCRIPT = Path(__file__).parents[2] / "flipped_tables.py"
FLIPS = 150
MOST_GROWN = 300
"""MiB of memory, for files of a few kilobytes; most of it is what libraries keep."""


@pytest.mark.parametrize("kind", ["manifest", "predictions", "timings"])
def test_a_flipped_bit_is_one_clean_error(kind, forks, tmp_path):
    make_tables(tmp_path)
    (done,) = forks.run(SCRIPT, kind, tmp_path, 7, FLIPS)
    assert done.code == 0, f"ended at bit {done.stderr.split()[-1:]}"
    told = json.loads(done.stdout)
    assert set(told["ends"]) <= {"refused", "same"}
    assert told["ends"]["refused"] >= FLIPS - 20
    assert told["grown"] < MOST_GROWN


EVERY_TYPE = pl.DataFrame(
    {
        "text": ["x", None],
        "texts": [["a", None], []],
        "turns": [[{"question": "q", "answer": "a"}], []],
        "nothing": [None, None],
        "kind": pl.Series(["u", None], dtype=pl.Enum(["u", "v"])),
        "category": pl.Series(["u", None], dtype=pl.Categorical),
        "width": pl.Series([1, None], dtype=pl.Int32),
        "right": [True, None],
        "score": [1.5, None],
        "bytes": [b"x", None],
        "at": pl.Series([1, 2], dtype=pl.Datetime("us", "UTC")),
    }
)


@pytest.mark.parametrize("table", [EVERY_TYPE, EVERY_TYPE.clear(), EVERY_TYPE[::-1]])
def test_every_type_comes_back_and_other_readers_see_the_same(table, tmp_path):
    path = tmp_path / "t.parquet"
    saved_tables.write(path, table, {"title": "\u00e9"})
    read = saved_tables.read(path, "again")
    assert read.rows.equals(table)
    assert read.rows.schema == table.schema
    assert json.loads(read.header) == {"title": "\u00e9"}
    assert pl.read_parquet(path).equals(table)
    table.write_parquet(path.with_name("before.parquet"))
    assert saved_tables.read(path.with_name("before.parquet"), "again").rows.equals(table)
    assert json.loads(pl.read_parquet_metadata(path)["medalign"]) == {"title": "\u00e9"}
    assert pq.read_table(path, page_checksum_verification=True).num_rows == table.height


def test_the_same_rows_are_the_same_bytes_in_however_many_chunks(tmp_path):
    whole = pl.DataFrame({"text": [f"answer {number}" for number in range(5000)]})
    parts = pl.concat([whole[:7], whole[7:3000], whole[3000:]], rechunk=False)
    assert parts.n_chunks() == 3
    for name, table in (("a", whole), ("b", parts)):
        saved_tables.write(tmp_path / name, table)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def as_before(path):
    """Write a table as earlier versions did: by polars, without checksums."""
    header = pl.read_parquet_metadata(path)["medalign"]
    pl.read_parquet(path).write_parquet(path, metadata={"medalign": header})


@pytest.mark.parametrize("rewrite", [as_before, lambda path: pq.write_table(pq.read_table(path), path)])
def test_tables_of_earlier_versions_and_other_programs_are_read(tmp_path, rewrite):
    make_tables(tmp_path)
    manifest, answers = Manifest.read(tmp_path / FILES["manifest"]), read_answers(tmp_path, RUN, IDS)
    for name in FILES.values():
        rewrite(tmp_path / name)
    assert Manifest.read(tmp_path / FILES["manifest"]).frame.equals(manifest.frame)
    assert read_answers(tmp_path, RUN, IDS) == answers


@pytest.mark.parametrize("kind", ["manifest", "predictions", "timings"])
def test_a_flipped_bit_without_checksums_raises_nothing_unclean(kind, forks, tmp_path):
    make_tables(tmp_path)
    as_before(tmp_path / FILES[kind])
    (done,) = forks.run(SCRIPT, kind, tmp_path, 8, FLIPS // 3)
    assert done.code == 0, f"ended at bit {done.stderr.split()[-1:]}"
    told = json.loads(done.stdout)
    assert set(told["ends"]) <= {"refused", "same", "other"}
    assert told["grown"] < MOST_GROWN


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda data: data[:-5], "its SHA-256 differs from the one that it was written with"),
        (lambda data: data[:100] + b"\xff\xff\xff\x7fPAR1", "no Parquet footer at its end"),
        (lambda data: data[:100], "no Parquet footer at its end"),
        (lambda data: data[:50] + b"\x00" * 50 + data[100:], "its SHA-256 differs from the one"),
        (lambda data: b"a,b\n1,2\n", "not a Parquet file"),
        (lambda data: b"", "not a Parquet file"),
    ],
)
def test_damage_says_file_and_remedy(harm, told, tmp_path):
    path = tmp_path / "t.parquet"
    saved_tables.write(path, pl.DataFrame({"n": range(100)}))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(InputError, match=told) as refused:
        saved_tables.read(path, "evaluate again")
    assert str(path) in str(refused.value)
    assert str(refused.value).endswith("evaluate again")


def test_pages_that_claim_more_than_the_file_can_hold_are_not_decoded(tmp_path):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": ["x" * 1_000_000] * 80}), path, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match="its pages claim more than"):
        saved_tables.read(path, "again")


def test_a_panic_of_a_library_in_rust_is_told_with_the_file():
    with pytest.raises(InputError, match="t cannot be read: no such token"), reading(Path("t")):
        raise PanicException("no such token")
    with pytest.raises(KeyboardInterrupt), reading(Path("t")):
        raise KeyboardInterrupt


def test_foreign_parquet_with_a_column_name_that_is_no_text_is_left_to_its_reader(tmp_path):
    path = tmp_path / "lab.parquet"
    pq.write_table(pa.table({"question": ["a?"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"question", b"\xffuestion"))
    assert parquet_files(tmp_path, ["*.parquet"]) == [path]
