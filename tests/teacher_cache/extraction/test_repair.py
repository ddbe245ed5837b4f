"""Repair with the real teacher: only damaged shards are recomputed; what cannot be repaired is left unchanged."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from harms import contents
from medalign.errors import InputError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.recompute import TeacherAtHand
from medalign.teacher_cache.extraction.row_check import compare_rows, draw_rows
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import UnfinishedStore, open_store
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.partial_view import StoreView
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.keyed_hashes import HashKey
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.teachers.teacher_loading import load_teacher
from medalign.teacher_cache.teachers.towers import build_tower
from medalign.teacher_cache.workers.engines import Crew
from medalign.teacher_cache.workers.prefetch import ImageSource
from safetensors.torch import save_file

SHARD = "E_v/c/1/0/0"


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


@pytest.fixture
def at_hand(teacher, make_images, truncated) -> Callable[..., TeacherAtHand]:
    """The teacher of `finished`, with all its images or with the given ones."""

    def make(
        sources: Sequence[ImageSource] | None = None, loaded: Teacher = teacher, key: HashKey | None = None
    ) -> TeacherAtHand:
        images = [*make_images(8), truncated] if sources is None else sources
        return TeacherAtHand(load_teacher=lambda: loaded, load_sources=lambda: images, hash_key=key, progress=Silent())

    return make


def flip(file: Path, byte: int = 500) -> None:
    data = bytearray(file.read_bytes())
    data[byte] ^= 4
    file.write_bytes(data)


def not_needed() -> Teacher:
    raise AssertionError("neither teacher nor images are needed for this")


def test_only_the_damaged_shard_is_recomputed_and_the_store_is_restored(copy, finished, at_hand):
    flip(copy / SHARD)
    untouched = {file: file.stat().st_mtime_ns for file in (copy / "E_v/c").rglob("*") if file.is_file()}
    report = repair(copy, at_hand())
    assert [(shard.shard, shard.rows, shard.equal) for shard in report.shards] == [(1, 2, 2)]
    assert report.root_before == report.root_after == open_store(finished).root_sha256
    assert (report.left, report.lacking) == ((), {})
    assert contents(copy) == contents(finished)
    changed = {file for file, when in untouched.items() if file.stat().st_mtime_ns != when}
    assert changed == {copy / SHARD}
    assert not (copy / ".lock").exists()


def test_repair_does_not_change_an_intact_store(copy):
    before = {file: file.stat().st_mtime_ns for file in copy.rglob("*")}
    never = TeacherAtHand(load_teacher=not_needed, load_sources=not_needed, hash_key=None, progress=Silent())
    report = repair(copy, never)
    assert (report.found, report.restored, report.shards) == ((), (), ())
    assert report.root_before == report.root_after
    assert {file: file.stat().st_mtime_ns for file in copy.rglob("*")} == before


@pytest.mark.parametrize("key", ["zarr.json", "index.parquet", "ledger/000001.json", "E_v/zarr.json", "README.md"])
def test_small_files_need_neither_weights_nor_images(key, copy, finished):
    (copy / key).write_bytes(b"{}")
    report = repair(copy)
    assert key in report.restored
    assert report.left == ()
    assert contents(copy) == contents(finished)


def test_repair_without_a_teacher_restores_the_rest_and_reports_what_is_missing(copy):
    flip(copy / SHARD)
    (copy / "README.md").unlink()
    report = repair(copy)
    assert (copy / "README.md").is_file()
    assert report.lacking.keys() == {1}
    assert "--weights" in report.lacking[1]
    assert [problem.key for problem in report.left] == [SHARD]
    assert open_store(copy).root_sha256 == report.root_after, "it can be read but for the bad shard"


def test_shards_without_their_images_are_left_and_others_are_repaired(copy, make_images, truncated, at_hand, tmp_path):
    flip(copy / SHARD)
    flip(copy / "E_v/c/2/0/0")
    images = [*make_images(8), truncated]
    changed = tmp_path / "changed.png"
    changed.write_bytes(images[4].path.read_bytes() + b"more")
    images[3:5] = [
        ImageSource(tmp_path / "absent.png", images[3].image_hash),
        ImageSource(changed, images[4].image_hash),
    ]
    before = (copy / SHARD).read_bytes()
    report = repair(copy, at_hand(images))
    assert [shard.shard for shard in report.shards] == [2]
    assert report.lacking.keys() == {1}
    assert "2 of its 2 images" in report.lacking[1]
    assert "No such file" in report.lacking[1]
    assert (copy / SHARD).read_bytes() == before
    assert [problem.key for problem in report.left] == [SHARD]
    assert not repair(copy, at_hand()).left


def test_another_teacher_is_rejected_before_it_writes(copy, at_hand, teacher, tmp_path):
    torch.manual_seed(5)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), tmp_path / "other.safetensors")
    other = load_teacher("phantom-tiny", tmp_path / "other.safetensors")
    flip(copy / SHARD)
    harmed = contents(copy)
    with pytest.raises(StoreError, match=r"this teacher does not reproduce 4 of 4 intact rows .* No shard was changed"):
        repair(copy, at_hand(loaded=other))
    assert contents(copy) == harmed


def test_a_killed_repair_is_reported_and_can_be_repeated(copy, finished, at_hand, monkeypatch):
    flip(copy / SHARD)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medalign.teacher_cache.extraction.recompute.Crew.run", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(copy, at_hand())
    with pytest.raises(UnfinishedStore, match=f"medalign store repair {copy}"):
        open_store(copy)
    assert not verify(copy).finished
    assert repair(copy, at_hand()).root_after == open_store(finished).root_sha256
    assert contents(copy) == contents(finished)


def test_repair_fails_while_another_run_writes(copy, at_hand):
    with RunLock(copy), pytest.raises(StoreError, match="another run is writing"):
        repair(copy, at_hand())


def test_repair_of_an_unfinished_store_points_to_extract(copy, make_images, run_extract, tmp_path, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medalign.teacher_cache.store.writing.writer.StoreWriter.finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_extract(make_images(4), tmp_path / "new.zarr")
    with pytest.raises(StoreError, match=r"was never finished.*`medalign teacher extract` with --resume"):
        repair(tmp_path / "new.zarr")


def test_a_store_without_both_headers_cannot_be_repaired(copy):
    (copy / "zarr.json").write_text("{")
    (copy / "index.parquet").unlink()
    with pytest.raises(StoreError, match="cannot be read either, so nothing can be checked or repaired"):
        repair(copy)


def test_repair_does_not_guess_between_different_headers(copy):
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text.replace('"data_use": "private"', '"data_use": "public"'))
    assert text != (copy / "zarr.json").read_text()
    (copy / "manifest-sha256.txt").unlink()
    with pytest.raises(StoreError, match=r"cannot be repaired: zarr.json: differs .*\(data_use\)"):
        repair(copy)


def test_an_unexpected_ledger_record_does_not_prevent_repair(copy):
    shutil.copy(copy / "ledger/000000.json", copy / "ledger/000099.json")
    (copy / "index.parquet").write_bytes(b"damaged")
    report = repair(copy)
    assert [(problem.kind, problem.key) for problem in report.left] == [("stranger", "ledger/000099.json")]
    (copy / "ledger/000099.json").unlink()
    assert verify(copy).ok


def test_unexpected_files_are_reported_and_kept(copy):
    (copy / "notes.txt").write_text("mine")
    report = repair(copy)
    assert [(problem.kind, problem.key) for problem in report.left] == [("stranger", "notes.txt")]
    assert (copy / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_store_is_reported(copy):
    (copy / "README.md").unlink()
    copy.chmod(0o500)
    with pytest.raises((StoreError, OSError)):
        repair(copy)


@pytest.mark.parametrize("profile", ["float16", "int8", "gram12"])
def test_profiles_and_keyed_hashes_are_repaired(profile, make_images, truncated, run_extract, at_hand, tmp_path):
    key, out = HashKey(b"k" * 32), tmp_path / "s.zarr"
    images = make_images(7)
    images.insert(3, truncated)
    run_extract(images, out, profile=profile, hash_key=key, batch_size=3)
    whole = contents(out)
    for file in (out / "E_a/c/1/0", out / "ledger/000001.json", out / "index.parquet"):
        flip(file, 40)
    report = repair(out, at_hand(images, key=key))
    assert report.left == ()
    assert contents(out) == whole


def test_a_record_with_a_superseded_failure_is_restored(make_images, run_extract, teacher, at_hand, tmp_path):
    """failures.parquet no longer lists that failure; the index keeps it for this purpose."""
    lost, out = tmp_path / "lost.png", tmp_path / "s.zarr"
    images = make_images(6)
    lost.write_bytes(images[1].path.read_bytes())
    first = [images[0], ImageSource(lost, images[1].image_hash), *images[2:5]]
    lost.unlink()
    assert len(run_extract(first, out).failures) == 1
    extend(teacher, images, out, retry_failed=True, crew=Crew(decode_workers=1))
    whole = contents(out)
    (out / "ledger/000000.json").unlink()
    flip(out / SHARD)
    report = repair(out, at_hand(images))
    assert "ledger/000000.json" in report.restored
    assert [shard.shard for shard in report.shards] == [1]
    assert contents(out) == whole


def test_correct_rows_pass_and_a_wrong_one_is_detected(finished, teacher, make_images, truncated):
    """The same image is well within the bounds; another one is far outside."""
    view = StoreView(LocalFiles(finished))
    records = list(view.records.values())
    sources = {source.image_hash: source for source in make_images(8)}
    rows = draw_rows(records, list(sources), 20, seed=1)
    assert len(rows) == 8
    assert rows[:3] == draw_rows(records, [image.image_hash for image in make_images(3)], 3, seed=0)
    for row in compare_rows(teacher, view.files, view.header, records, rows, sources):
        assert row.within
        assert row.same_pixels
        assert row.max_dS < row.max_dS_allowed / 2
        assert row.min_cosine is not None
        assert row.min_cosine > 0.999999
    first, second, *_ = sources.values()
    swapped = {first.image_hash: second}
    (false,) = compare_rows(teacher, view.files, view.header, records, [0], swapped)
    assert not false.within
    assert false.max_dS > 5 * false.max_dS_allowed


def test_a_sample_of_unrelated_images_is_rejected(finished):
    with pytest.raises(InputError, match="none of the given images has a row"):
        draw_rows(list(StoreView(LocalFiles(finished)).records.values()), ["0" * 64], 3, seed=0)


@pytest.mark.parametrize("profile", ["native", "int8", "gram16", "gram12", "float32"])
def test_every_profile_is_within_the_bounds(profile, teacher, make_images, run_extract, tmp_path):
    run_extract(make_images(4), tmp_path / "s.zarr", profile=profile, grid=PatchGrid(5, 5))
    view = StoreView(LocalFiles(tmp_path / "s.zarr"))
    sources = {source.image_hash: source for source in make_images(4)}
    found = compare_rows(teacher, view.files, view.header, list(view.records.values()), range(4), sources)
    assert all(row.within for row in found), found
    assert (found[0].min_cosine is None) == profile.startswith("gram")
