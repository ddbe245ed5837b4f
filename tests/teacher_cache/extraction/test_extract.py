"""Stage one: stored targets equal a direct forward pass; failures, interruptions and full disks lose nothing else."""

import dataclasses
import errno
import json
import os
import signal

import numpy as np
import pytest
import torch
from medalign.errors import InputError, SettingsError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.geometry.pixels import interpolate_patches, to_pixels
from medalign.teacher_cache.geometry.square import fill_color, to_square
from medalign.teacher_cache.images import decode_image
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.keyed_hashes import HashKey
from medalign.teacher_cache.store.format.shard_file import ShardWriter
from medalign.teacher_cache.store.records.index import read_columns
from medalign.teacher_cache.store.records.ledger import committed_shards
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.teachers.forward import Teacher
from medalign.teacher_cache.workers import shard_work
from medalign.teacher_cache.workers.writer_thread import ShardSink
from PIL import Image


def direct(teacher, source: ImageSource, grid: PatchGrid, geometry: str):
    """Run the teacher on one image."""
    spec = teacher.spec
    decoded = decode_image(source.path.read_bytes())
    square = to_square(decoded.rgb, spec.image_size, geometry, fill_color(spec.mean))
    output = teacher.forward(to_pixels(square, spec.mean, spec.std)[None])
    patches = interpolate_patches(output.patches, spec.grid, grid)[0]
    return patches, interpolate_patches(output.attention[..., None], spec.grid, grid)[0, :, 0]


@pytest.mark.parametrize("geometry", ["pad", "crop"])
@pytest.mark.parametrize("grid", ["12x12", "7x9"])
def test_store_equals_a_direct_forward(teacher, make_images, run_extract, tmp_path, geometry, grid):
    images, wanted = make_images(5), PatchGrid.parse(grid)
    run_extract(images, tmp_path / "s.zarr", grid=wanted, geometry=geometry)
    store = open_store(tmp_path / "s.zarr")
    assert (store.header.geometry, store.header.grid) == (geometry, wanted)
    for source in images:
        patches, attention = direct(teacher, source, wanted, geometry)
        target = store[source.image_hash]
        assert target.E_v.dtype == target.E_a.dtype == torch.float32
        assert torch.cosine_similarity(target.E_v, patches, dim=-1).min() >= 0.9999
        torch.testing.assert_close(target.E_v, patches, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(target.E_a, attention, rtol=0, atol=1e-6)


def test_index_has_sizes_hashes_and_the_change_by_float16(teacher, make_images, run_extract, tmp_path):
    images = make_images(4)
    run_extract(images, tmp_path / "s.zarr")
    files = LocalFiles(tmp_path / "s.zarr")
    rows = read_columns(files, "index.parquet", ["image_hash", "width", "height", "max_abs_dS"], read_header(files))
    for source, row in zip(images, rows.to_pylist(), strict=True):
        patches, _ = direct(teacher, source, PatchGrid(6, 6), "pad")
        change = (cosine_matrix(patches[None]) - cosine_matrix(patches[None].half())).abs().max().item()
        with Image.open(source.path) as image:
            assert (row["width"], row["height"]) == image.size
        assert row["image_hash"] == source.image_hash
        assert row["max_abs_dS"] == pytest.approx(change, rel=0.05, abs=1e-6)
        assert 0 < row["max_abs_dS"] < 1e-3


def test_duplicates_share_one_row_in_order_of_first_occurrence(make_images, run_extract, tmp_path):
    first, second, third = make_images(3)
    report = run_extract([second, first, second, third, first], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert report.images == len(store) == 3
    assert [store.row(source.image_hash) for source in (second, first, third)] == [0, 1, 2]


def test_bad_images_become_failures_and_the_run_continues(make_images, run_extract, truncated, tmp_path):
    good = make_images(5)
    absent = ImageSource(tmp_path / "patient-42.png", "a" * 64)
    text = tmp_path / "patient-43.jpg"
    text.write_text("not an image")
    changed = dataclasses.replace(good[3], image_hash="b" * 64)
    named = ImageSource(text, "7b3e1bcff3c9a8a5c1f1d3d3a3a1bd3dd2e3a3f8b9d1ad1d1c7a0a1c3c5e7f90")
    pipe = ImageSource(tmp_path / "pipe", "e" * 64)
    os.mkfifo(pipe.path)
    bad = [absent, changed, named, pipe]
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    report = run_extract([good[0], truncated, *bad, *good[1:3]], tmp_path / "s.zarr", progress=Notes())
    reasons = {failure.image_hash: failure.reason for failure in report.failures}
    assert reasons[truncated.image_hash].startswith("truncated")
    assert reasons[absent.image_hash].endswith("No such file or directory")
    assert reasons["b" * 64] == reasons[named.image_hash] == "the file has changed since it was hashed"
    assert reasons[pipe.image_hash] == "a pipe, not a regular file"
    assert len(notes) == report.images - 3 == 5
    store = open_store(tmp_path / "s.zarr")
    assert store.failures == reasons
    assert store.missing([source.image_hash for source in (good[0], truncated, good[2])]) == [truncated.image_hash]
    assert verify(tmp_path / "s.zarr").ok


def test_no_file_name_or_path_is_stored(finished, truncated):
    contents = b"".join(file.read_bytes() for file in finished.rglob("*") if file.is_file())
    assert truncated.image_hash.encode() in contents
    for secret in ("patient-", "jane", ".png", ".jpg", str(truncated.path.parent)):
        assert secret.encode() not in contents


def test_a_batch_in_which_everything_failed(run_extract, make_images, truncated, tmp_path):
    report = run_extract([truncated, *make_images(1)], tmp_path / "s.zarr", batch_size=1, shard_rows=1)
    assert (report.shards_done, len(report.failures)) == (2, 1)
    assert verify(tmp_path / "s.zarr").ok


def test_values_beyond_float16_are_stored_wider(teacher, make_images, run_extract, tmp_path):
    images = make_images(5)
    loud = dataclasses.replace(teacher, tower=Loud(teacher.tower, 1e6))
    report = run_extract(images, tmp_path / "s.zarr", teacher=loud)
    assert (report.failures, report.profiles, report.shards_done) == ((), {"float32": 2}, 2)
    store = open_store(tmp_path / "s.zarr")
    for source in images:
        patches, _ = direct(loud, source, PatchGrid(6, 6), "pad")
        torch.testing.assert_close(store[source.image_hash].E_v, patches, rtol=1e-5, atol=1e-5 * 1e6)
    assert verify(tmp_path / "s.zarr").ok


def test_shards_that_exceed_the_tolerance_get_wider_profiles_step_by_step(make_images, run_extract, tmp_path):
    """The tolerance is between the shards' errors, so some shards keep the profile and some do not."""
    images = make_images(9)
    run_extract(images, tmp_path / "free.zarr", profile="gram12")
    worst = sorted(shard_errors(tmp_path / "free.zarr"))
    tolerance = (worst[0] + worst[1]) / 2
    report = run_extract(images, tmp_path / "s.zarr", profile="gram12", tolerance=tolerance)
    assert report.profiles == {"gram12": 1, "gram16": 2}
    assert max(shard_errors(tmp_path / "s.zarr")) <= tolerance
    exact = run_extract(images, tmp_path / "exact.zarr", profile="gram12", tolerance=1e-12)
    assert exact.profiles == {"float32": 3}
    assert verify(tmp_path / "s.zarr").ok


def shard_errors(out) -> list[float]:
    """Largest max|dS| in each of the three shards of a store."""
    rows = read_columns(
        LocalFiles(out), "index.parquet", ["row", "max_abs_dS"], read_header(LocalFiles(out))
    ).to_pylist()
    return [max(row["max_abs_dS"] for row in rows if row["row"] // 3 == shard) for shard in range(3)]


def test_a_nonfinite_output_is_a_failure(teacher, make_images, run_extract, tmp_path):
    broken = dataclasses.replace(teacher, tower=Loud(teacher.tower, float("nan")))
    report = run_extract(make_images(1), tmp_path / "s.zarr", teacher=broken)
    assert report.failures[0].reason == "the teacher's output in float32 is not finite"
    assert report.profiles == {"float16": 1}, "no profile is wide enough: nothing is computed again"


class Loud(torch.nn.Module):
    """A tower whose last block outputs values beyond the range of float16."""

    def __init__(self, tower: torch.nn.Module, volume: float) -> None:
        super().__init__()
        self.transformer, self.tower, self.volume = tower.transformer, tower, volume

    def forward(self, pixels):
        louder = lambda *given: given[-1] * self.volume  # noqa: E731
        handle = self.transformer.resblocks[-1].register_forward_hook(louder, prepend=True)
        self.tower(pixels)
        handle.remove()


def test_existing_and_unrelated_outputs_are_rejected(make_images, run_extract, finished, tmp_path):
    with pytest.raises(
        StoreError,
        match=r"is finished: a store of phantom-tiny with the grid \d+x\d+\. Another grid.*`medalign store extend",
    ):
        run_extract(make_images(2), finished)
    (tmp_path / "notes").mkdir()
    with pytest.raises(StoreError, match="exists and is not a teacher store: choose another --out"):
        run_extract(make_images(2), tmp_path / "notes")
    with pytest.raises(InputError, match="no images"):
        run_extract([], tmp_path / "s.zarr")


def test_resume_lists_every_setting_that_differs(make_images, run_extract, finished):
    with pytest.raises(StoreError) as caught:
        run_extract(
            make_images(2), finished, resume=True, geometry="crop", grid=PatchGrid(5, 5), batch_size=4, threads=7,
            profile="int8", tolerance=1e-3, title="Mine", hash_key=HashKey(b"k" * 32),
        )  # fmt: skip
    message = str(caught.value)
    for words in (
        "geometry: crop, not pad",
        "grid: 5x5, not 6x6",
        "batch_size: 4, not 2",
        "threads: 7, not ",
        "profile: int8, not float16",
        "tolerance: 0.001, not None",
        "title: Mine, not None",
        "hashing: hmac-sha256:",
    ):
        assert words in message


def test_resume_uses_the_plan_of_the_store(make_images, run_extract, truncated, tmp_path):
    """Order and duplicates do not matter; missing images are an error; additional ones are skipped and reported."""
    images, out, stop = [*make_images(10), truncated], tmp_path / "s.zarr", StopAfter(4)
    with pytest.raises(KeyboardInterrupt):
        run_extract(images, out, progress=stop)
    with pytest.raises(InputError, match=r"2 of the 11 planned images of .* are not among the given ones"):
        run_extract(images[2:], out, resume=True)
    further = [*reversed(images), *make_images(12)]
    stop.left = 100
    resumed = run_extract(further, out, resume=True, progress=stop, batch_size=None, shard_rows=None)
    (note,) = [note for note in stop.notes if "not in the plan" in note]
    assert note.startswith("2 images are not in the plan of")
    assert "`medalign store extend` adds them" in note
    assert resumed.root_sha256 == run_extract(images, tmp_path / "whole.zarr").root_sha256
    again = run_extract(further, out, resume=True)
    assert (again.shards_done, again.root_sha256) == (0, resumed.root_sha256)


def test_files_that_cannot_be_hashed_are_failures_without_a_hash(make_images, run_extract, tmp_path):
    report = run_extract(make_images(2), tmp_path / "s.zarr", unreadable=["permission denied"])
    assert (report.failures, report.unreadable, report.images) == ((), ("permission denied",), 2)
    assert verify(tmp_path / "s.zarr").ok


def test_a_keyed_store_contains_no_plain_hash(make_images, run_extract, truncated, tmp_path):
    key, out = HashKey(b"k" * 32), tmp_path / "s.zarr"
    images = [*make_images(3), truncated]
    report = run_extract(images, out, hash_key=key)
    store = open_store(out, hash_key=key)
    plain = run_extract(images, tmp_path / "plain.zarr")
    for source in images[:3]:
        assert torch.equal(store[source.image_hash].E_v, open_store(plain.out)[source.image_hash].E_v)
    assert [failure.image_hash for failure in report.failures] == [key.keyed(truncated.image_hash)]
    contents = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert not any(source.image_hash.encode() in contents for source in images)
    assert run_extract(images, out, hash_key=key, resume=True).root_sha256 == report.root_sha256
    with pytest.raises(StoreError, match=rf"hashing: sha256, not hmac-sha256:{key.key_id}"):
        run_extract(images, out, resume=True)


def test_resume_of_a_finished_store_does_nothing(make_images, run_extract, tmp_path):
    done = run_extract(make_images(4), tmp_path / "s.zarr")
    again = run_extract(make_images(4), tmp_path / "s.zarr", resume=True, shard_rows=None)
    assert (again.shards_done, again.shards_reused, again.root_sha256) == (0, 2, done.root_sha256)


def test_resume_repairs_records_and_the_index(make_images, run_extract, tmp_path):
    out = tmp_path / "s.zarr"
    done = run_extract(make_images(4), out)
    (out / "ledger" / "000001.json").write_text("{")
    (out / "index.parquet").write_bytes(b"")
    (out / "notes.txt").write_text("mine")
    again = run_extract(make_images(4), out, resume=True)
    assert (again.shards_done, again.root_sha256) == (1, done.root_sha256)
    assert [str(problem) for problem in verify(out).problems] == ["notes.txt: is not part of the store"]


def test_an_output_that_cannot_be_created_is_reported(make_images, run_extract, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*: (Not a directory|File exists)"):
        run_extract(make_images(1), tmp_path / "file" / "s.zarr")


def test_out_of_device_memory_suggests_a_smaller_batch_size(teacher, make_images, run_extract, tmp_path):
    class Full(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = teacher.tower.transformer

        def forward(self, pixels):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(SettingsError, match=r"batch of 2 images does not fit .* remove .* --batch-size 1"):
        run_extract(make_images(2), tmp_path / "s.zarr", teacher=dataclasses.replace(teacher, tower=Full()))


def test_root_digest_depends_only_on_content(make_images, run_extract, tmp_path):
    images = make_images(5)
    digests = {
        run_extract(order, tmp_path / f"{name}.zarr", batch_size=1, shard_rows=rows).root_sha256
        for name, order, rows in (("a", images, 2), ("b", images[::-1], 5), ("c", images, 64))
    }
    assert len(digests) == 1
    assert run_extract(images[:4], tmp_path / "d.zarr", batch_size=1).root_sha256 not in digests


class StopAfter(Silent):
    """Presses Ctrl-C once some images are done."""

    def __init__(self, images: int) -> None:
        self.left = images
        self.notes: list[str] = []

    def advance(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_an_interrupt_keeps_complete_shards_and_resumes(make_images, run_extract, tmp_path):
    images, out = make_images(11), tmp_path / "s.zarr"
    stop = StopAfter(7)
    with pytest.raises(KeyboardInterrupt):
        run_extract(images, out, progress=stop)
    assert committed_shards(out) == [0, 1]
    assert stop.notes == ["interrupted; kept: 2 of 4 shards; use --resume to continue"]
    assert not list(out.rglob("*.partial"))
    with pytest.raises(StoreError, match=r"unfinished: 2 of 4 shards are committed\. .*--resume"):
        open_store(out)
    resumed = run_extract(images, out, resume=True)
    assert (resumed.shards_reused, resumed.shards_done) == (2, 2)
    assert resumed.root_sha256 == run_extract(images, tmp_path / "whole.zarr").root_sha256
    assert verify(out).root_sha256 == resumed.root_sha256


def test_a_resumed_run_reports_earlier_failures_too(make_images, run_extract, truncated, tmp_path):
    images, out = [truncated, *make_images(6)], tmp_path / "s.zarr"
    with pytest.raises(KeyboardInterrupt):
        run_extract(images, out, progress=StopAfter(4))
    resumed = run_extract(images, out, resume=True)
    assert resumed.shards_reused > 0
    assert [failure.image_hash for failure in resumed.failures] == [truncated.image_hash]


def test_full_disk_keeps_committed_shards(make_images, run_extract, tmp_path, monkeypatch):
    images, out = make_images(9), tmp_path / "s.zarr"
    shard_bytes = 3 * 6 * 6 * 96 * 2
    written, room = 0, int(1.5 * shard_bytes)

    def write(self, data) -> None:
        nonlocal written
        written += len(data)
        if written > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, data)

    original = ShardWriter._write
    monkeypatch.setattr(ShardWriter, "_write", write)
    with pytest.raises(StoreError, match=r"is full\. Kept: 1 of 3 shards .* --resume"):
        run_extract(images, out)
    monkeypatch.undo()
    assert not list(out.rglob("*.partial"))
    assert run_extract(images, out, resume=True).shards_reused == 1


def test_a_second_live_writer_is_rejected(make_images, run_extract, tmp_path):
    run_extract(make_images(4), tmp_path / "s.zarr")
    with (
        RunLock(tmp_path / "s.zarr"),
        pytest.raises(StoreError, match="another run is writing to"),
    ):
        run_extract(make_images(4), tmp_path / "s.zarr", resume=True)


CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from medalign.teacher_cache.workers.engines import Crew
from medalign.teacher_cache.extraction.stage_one import ExtractionOptions, ImageSource, extract
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.records.ledger import committed_shards
from medalign.progress import Silent
from medalign.teacher_cache.teachers.teacher_loading import load_teacher

weights, out, images = json.loads(sys.argv[1])

class Killed(Silent):
    left = 11
    def advance(self, steps=1):
        self.left -= steps
        deadline = time.monotonic() + 60
        while self.left <= 0:
            if committed_shards(Path(out)) == [0, 1, 2] and any(Path(out).rglob("*.partial")):
                os.kill(os.getpid(), signal.SIGKILL)
            assert time.monotonic() < deadline, "too little is committed"
            time.sleep(0.001)

sources = [ImageSource(Path(path), digest) for path, digest in images]
extract(load_teacher("phantom-tiny", weights), sources, Path(out),
        ExtractionOptions(grid=PatchGrid(6, 6), batch_size=2, shard_rows=3, threads=1, crew=Crew(decode_workers=2)),
        progress=Killed())
"""


def test_killed_run_resumes_to_the_same_digest(make_images, run_extract, phantom_weights, tmp_path, forks):
    """The child stops at its eleventh image, and is in its fourth shard when it kills itself."""
    images, out = make_images(14), tmp_path / "s.zarr"
    (tmp_path / "child.py").write_text(CHILD)
    given = [str(phantom_weights), str(out), [(str(s.path), s.image_hash) for s in images]]
    (child,) = forks.run(tmp_path / "child.py", json.dumps(given))
    assert child.code == -signal.SIGKILL, child.stderr
    assert committed_shards(out) == [0, 1, 2]
    assert list(out.rglob("*.partial")), "the fourth shard is torn"
    resumed = run_extract(images, out, resume=True)
    assert (resumed.shards_reused, resumed.shards_done) == (3, 2)
    assert resumed.root_sha256 == run_extract(images, tmp_path / "whole.zarr").root_sha256
    assert verify(out).ok


def test_nothing_else_computes_while_the_teacher_uses_all_cores(make_images, run_extract, tmp_path, monkeypatch):
    images, prepared, written, seen = make_images(7), [], [], []

    def noted(function, calls):
        def call(*args, **settings):
            calls.append(1)
            return function(*args, **settings)

        return call

    def forward(teacher, pixels):
        before = len(prepared), len(written)
        output = forwards(teacher, pixels)
        seen.append((before, (len(prepared), len(written))))
        return output

    forwards = Teacher.forward
    monkeypatch.setattr(shard_work, "prepare_image", noted(shard_work.prepare_image, prepared))
    monkeypatch.setattr(ShardSink, "_write", noted(ShardSink._write, written))
    monkeypatch.setattr(Teacher, "forward", forward)
    monkeypatch.setattr(shard_work, "usable_cores", lambda: 1)
    alone = run_extract(images, tmp_path / "alone.zarr", threads=1)
    # Batches of 2, 1, 2, 1, 1: those before are written, this one is prepared, and none of the next.
    assert seen == [((count, batch),) * 2 for batch, count in enumerate([2, 3, 5, 6, 7])]
    monkeypatch.setattr(shard_work, "usable_cores", lambda: 2)
    assert run_extract(images, tmp_path / "beside.zarr", threads=1).root_sha256 == alone.root_sha256


def test_time_shares_add_up(make_images, run_extract, tmp_path):
    report = run_extract(make_images(4), tmp_path / "s.zarr")
    shares = np.array([report.decode_share, report.forward_share, report.write_share])
    assert (shares >= 0).all()
    assert shares.sum() <= 1
    assert report.images_per_second > 0
    assert report.bytes == sum(f.stat().st_size for f in (tmp_path / "s.zarr").rglob("*") if f.is_file())
