"""Every kind of harm to a finished store is found by `verify`, stops a read of what it hit, and can be
repaired."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from medalign.errors import StoreError
from medalign.teacher_cache.store import DamagedStore, open_store
from medalign.teacher_cache.store.format import read_header
from medalign.teacher_cache.store.verify import verify

SHARD = "E_v/c/1/0/0"


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def found(store: Path) -> bool:
    """Does `verify` notice? A header that cannot be read at all is noticed as well."""
    try:
        return not verify(store).ok
    except StoreError:
        return True


def test_a_whole_store_has_no_problems(finished):
    report = verify(finished)
    assert report.ok
    assert (report.shards, report.images, report.failures) == (3, 8, 1)
    assert report.root_sha256 == open_store(finished).root_sha256
    assert report.bytes == sum(file.stat().st_size for file in finished.rglob("*") if file.is_file())


def test_random_single_bit_flips_are_all_found(copy):
    draw = random.Random(8)
    files = sorted(file for file in copy.rglob("*") if file.is_file())
    missed = []
    for turn in range(90):
        file = files[turn % len(files)]
        bit = draw.randrange(file.stat().st_size * 8)
        flip(file, bit)
        if not found(copy):
            missed.append((file.name, bit))
        flip(file, bit)
    assert missed == []
    assert verify(copy).ok, "every flip was undone"


def test_truncations_deletions_swaps_and_strangers_are_found(copy):
    files = sorted(file for file in copy.rglob("*") if file.is_file())
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[:-1])
        assert found(copy), f"truncated {file}"
        file.unlink()
        assert found(copy), f"deleted {file}"
        file.write_bytes(data)
    first, second = copy / "E_v/c/0/0/0", copy / SHARD
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert found(copy), "swapped shards"
    first.write_bytes(one)
    second.write_bytes(two)
    (copy / "notes.txt").write_text("mine")
    assert verify(copy).problems == ("notes.txt is not listed in manifest-sha256.txt",)


def overwrite(file: Path, start: int, data: bytes) -> None:
    with file.open("rb+") as opened:
        opened.seek(start)
        opened.write(data)


def harms() -> dict[str, tuple]:
    """What is done to shard 1 of E_v, and what the read of its row says."""
    return {
        "flipped bit": (lambda file: flip(file, 1000), "chunk 0 of .* is damaged: its crc32c does not match"),
        "zeros": (lambda file: overwrite(file, 0, bytes(5000)), "chunk 0 of .* is damaged"),
        "deleted": (lambda file: file.unlink(), "is gone, although the store is finished"),
        "short": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "the shard index of .* is damaged"),
        "empty": (lambda file: file.write_bytes(b""), "was cut short"),
        "index": (lambda file: flip(file, file.stat().st_size * 8 - 100), "the shard index of .* is damaged"),
    }


@pytest.mark.parametrize("harm", harms())
def test_a_read_of_a_harmed_row_raises_and_resume_repairs(harm, copy, make_images, truncated, run_extract, finished):
    damage, words = harms()[harm]
    damage(copy / SHARD)
    store = open_store(copy)
    images = make_images(8)
    harmed, sound = images[3].image_hash, images[0].image_hash
    assert store.row(harmed) == 3, "the first row of shard 1"
    with pytest.raises(DamagedStore, match=words) as caught:
        store[harmed]
    assert f"medalign teacher verify {copy}" in str(caught.value)
    assert f"delete its file {SHARD} and repeat the extract command with --resume" in str(caught.value)
    assert store[sound].E_v.isfinite().all()

    (copy / SHARD).unlink(missing_ok=True)
    report = run_extract([*images[:4], truncated, *images[4:]], copy, resume=True)
    assert (report.shards_done, report.shards_reused) == (1, 2)
    assert report.root_sha256 == open_store(finished).root_sha256
    assert verify(copy).ok


def test_a_vanished_chunk_is_no_row_of_zeros(copy, make_images):
    """Stock zarr reads a deleted shard without an error; the fill value shows it, and our reader refuses
    it."""
    image = make_images(8)[3].image_hash
    group = zarr.open_group(str(copy), mode="r+")
    group["E_v"][3:6] = np.full((3, 36, 96), np.nan, np.float16)
    assert np.isnan(zarr.open_group(str(copy), mode="r")["E_v"][3]).all()
    with pytest.raises(DamagedStore, match=r"row 3 of E_v .* holds nothing|is gone"):
        open_store(copy)[image]
    assert found(copy)


def test_rows_that_are_not_finite_are_refused(copy, make_images):
    group = zarr.open_group(str(copy), mode="r+")
    values = group["E_a"][0:3]
    values[0, 5] = np.inf
    group["E_a"][0:3] = values
    with pytest.raises(DamagedStore, match=r"row 0 of E_a .* is not finite"):
        open_store(copy)[make_images(1)[0].image_hash]
    assert found(copy)


def test_an_unfinished_store_is_verified_as_far_as_it_is(copy):
    (copy / "manifest-sha256.txt").unlink()
    (copy / "ledger" / "000002.json").unlink()
    report = verify(copy)
    assert not report.ok
    assert (report.finished, report.shards, report.problems, report.root_sha256) == (False, 2, (), None)
    flip(copy / SHARD, 9)
    assert any("E_v/c/1/0/0 has changed" in problem for problem in verify(copy).problems)


def test_problems_name_files_and_rows(copy):
    flip(copy / SHARD, 1000)
    problems = "\n".join(verify(copy).problems)
    assert f"{SHARD} has changed: its SHA-256 is not the one in the ledger" in problems
    assert "chunk 0 of" in problems
    assert read_header(copy).rows == 9
