"""What `verify` says of whole, harmed, unfinished and remote stores."""

import random
import shutil
from pathlib import Path

import medalign
import numpy as np
import pytest
import zarr
from harms import Harm, contents, draw_harms, kind_of
from medalign.atomic import temporary_path
from medalign.errors import StoreError
from medalign.teacher_cache.store import DamagedStore, open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.reading.rows import row_values
from medalign.teacher_cache.store.store_problem import rows_text
from stores import name_of, write_store

SHARD = "E_v/c/1/0/0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Four shards of four rows, the last of two; row 5 failed, shard 2 is in float32."""
    out = tmp_path_factory.mktemp("whole") / "s.zarr"
    made_by = f"medalign {medalign.__version__}"
    return write_store(out, range(14), failing=[5], wide={2: "float32"}, unreadable=["a pipe"], created_by=made_by)


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def problem_texts(store: Path, *, quick: bool = False) -> list[str]:
    return [str(problem) for problem in verify(store, quick=quick).problems]


def flip(file: Path, byte: int) -> None:
    data = bytearray(file.read_bytes())
    data[byte] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("quick", [False, True])
def test_an_intact_store_has_no_problems(quick, whole):
    report = verify(whole, quick=quick)
    assert report.ok
    assert (report.shards, report.images, report.failures) == (4, 13, 2)
    assert report.root_sha256 == open_store(whole).root_sha256
    assert report.bytes == sum(map(len, contents(whole).values()))
    assert report.shard_bytes == sum(len(data) for key, data in contents(whole).items() if "/c/" in key)


def test_all_of_several_damages_are_listed(whole, tmp_path):
    """Of each kind of file one is harmed; no harm hides another."""
    draw = random.Random(4)
    for turn in range(12):
        store = Path(shutil.copytree(whole, tmp_path / f"{turn}.zarr"))
        harms = [harm for harm in draw_harms(whole, 200, seed=turn) if harm.what in ("flip", "delete")]
        one_each = {kind_of(harm.key): harm for harm in harms if harm.key != "manifest-sha256.txt"}
        chosen = draw.sample(list(one_each.values()), 5)
        if {"zarr.json", "index.parquet"} <= {harm.key for harm in chosen}:
            continue  # nothing can be compared without a header
        for harm in chosen:
            harm.apply(store)
        named = {problem.key for problem in verify(store).problems}
        assert named >= {harm.key for harm in chosen}, chosen


def test_a_problem_gives_file_rows_and_cause(copy):
    flip(copy / SHARD, 10)
    flip(copy / "E_a/c/3/0", 10)
    (copy / "ledger/000000.json").unlink()
    (copy / "wide/float32/E_v/c/2/0/0").unlink()
    assert problem_texts(copy) == [
        "ledger/000000.json: is missing",
        "wide/float32/E_v/c/2/0/0, rows 8-11: is missing",
        f"{SHARD}, row 4: the crc32c of the chunk does not match its bytes",
        "E_a/c/3/0, row 12: the crc32c of the chunk does not match its bytes",
    ]


def test_quick_reads_no_shard_and_checks_sizes_and_ledger(copy):
    flip(copy / SHARD, 10)
    assert problem_texts(copy, quick=True) == []
    (copy / SHARD).write_bytes(b"short")
    (copy / "README.md").write_text("mine")
    assert problem_texts(copy, quick=True) == [
        "README.md: does not match its SHA-256 in manifest-sha256.txt",
        "README.md: does not match the header and the index",
        f"{SHARD}, rows 4, 6-7: has 5 bytes, but the ledger lists 848",
    ]


def test_swapped_shards_with_valid_checksums_are_detected(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(8))
    Harm("swap", "E_v/c/0/0/0", 0, SHARD).apply(store)
    what = "has changed: its SHA-256 does not match the ledger"
    assert problem_texts(store) == [f"E_v/c/0/0/0, rows 0-3: {what}", f"{SHARD}, rows 4-7: {what}"]
    with pytest.raises(DamagedStore, match="contains the bytes of another row"):
        open_store(store)[name_of(0)]


def test_a_damaged_manifest_line_is_not_attributed_to_the_ledger(copy):
    manifest = copy / "manifest-sha256.txt"
    lines = manifest.read_text().splitlines()
    for key, named in (
        (SHARD, f"lists a different SHA-256 for {SHARD} from the ledger's"),
        ("ledger/000001.json", "lists the wrong SHA-256 for ledger/000001.json"),
    ):
        other = {line: f"{'f' if line[0] != 'f' else '0'}{line[1:]}" for line in lines if line.endswith(f"  {key}")}
        harmed = [other.get(line, line) for line in lines]
        manifest.write_text("\n".join(harmed) + "\n")
        (problem,) = verify(copy).problems
        assert (problem.kind, problem.key) == ("derived", "manifest-sha256.txt")
        assert named in problem.what


def test_cards_of_other_versions_are_checked_only_by_digest(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(4), created_by="medalign 9.9")
    (store / "README.md").write_text("in other words")
    assert problem_texts(store) == ["README.md: does not match its SHA-256 in manifest-sha256.txt"]


def test_existing_parts_of_an_unfinished_store_are_verified(tmp_path, monkeypatch):
    from medalign.teacher_cache.store.writing.writer import StoreWriter

    monkeypatch.setattr(StoreWriter, "finish", lambda self: None)
    store = write_store(tmp_path / "s.zarr", range(10))
    (store / "ledger/000002.json").unlink()
    (store / "E_v/c/2/0/0").rename(temporary_path(store / "E_v/c/2/0/0"))
    report = verify(store)
    assert not report.ok
    assert (report.finished, report.shards, report.problems, report.root_sha256) == (False, 2, (), None)
    flip(store / SHARD, 9)
    assert problem_texts(store) == [f"{SHARD}, row 4: the crc32c of the chunk does not match its bytes"]


def test_a_missing_chunk_is_not_a_row_of_zeros(copy):
    """Stock zarr reads a deleted shard without an error; the fill value shows it, and our reader refuses it."""
    group = zarr.open_group(str(copy), mode="r+")
    group["E_v"][4:8] = np.full((4, 16, 8), np.nan, np.float16)
    assert np.isnan(zarr.open_group(str(copy), mode="r")["E_v"][4]).all()
    with pytest.raises(DamagedStore, match=r"row 4 of E_v.* is empty|is missing|damaged|truncated"):
        open_store(copy)[name_of(4)]
    assert not verify(copy).ok


def test_nonfinite_rows_are_rejected(copy):
    group = zarr.open_group(str(copy), mode="r+")
    values = group["E_a"][0:4]
    values[0, 5] = np.inf
    group["E_a"][0:4] = values
    with pytest.raises(DamagedStore, match="medalign store repair"):
        open_store(copy)[name_of(0)]
    assert not verify(copy).ok


@pytest.mark.parametrize(
    ("value", "finite"), [(1e15, True), (3e38, False), (np.inf, False), (-np.inf, False), (np.nan, False)]
)
def test_nonfinite_attention_is_rejected(whole, value, finite):
    store = open_store(whole)
    (stored,) = store.stored_rows([store.position(name_of(0))])
    attention = np.frombuffer(stored.chunks[-1], "<f4").copy()
    attention[:3] = value
    changed = stored._replace(chunks=[*stored.chunks[:-1], memoryview(attention.tobytes())])
    if finite:
        np.testing.assert_array_equal(row_values(changed)["E_a"][0], attention)
    else:
        with pytest.raises(DamagedStore, match=r"E_a of row 0 of .* not finite"):
            row_values(changed)


def test_a_remote_store_is_verified_only_with_quick(whole):
    pytest.importorskip("fsspec")
    import fsspec

    memory = fsspec.filesystem("memory")
    for key, data in contents(whole).items():
        memory.pipe(f"/lab/s.zarr/{key}", data)
    report = verify("memory://lab/s.zarr", quick=True)
    assert report.ok
    assert report.root_sha256 == open_store(whole).root_sha256
    memory.pipe(f"/lab/s.zarr/{SHARD}", b"short")
    assert problem_texts("memory://lab/s.zarr", quick=True) == [
        f"{SHARD}, rows 4, 6-7: has 5 bytes, but the ledger lists 848"
    ]
    with pytest.raises(StoreError, match=r"medalign store pull.*--quick"):
        verify("memory://lab/s.zarr")


def test_rows_are_shown_as_ranges():
    assert rows_text([3]) == "row 3"
    assert rows_text([9, 3, 4, 5]) == "rows 3-5, 9"
