"""Several workers and runs on one store: the result does not depend on them, and errors are reported."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from medalign.errors import InputError, SettingsError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import ExtractionOptions, Task, TeacherRecipe, extract, finish
from medalign.teacher_cache.extraction.store_plan import assign_images, shard_jobs
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.records.ledger import committed_shards
from medalign.teacher_cache.store.writing.writer import StoreWriter
from medalign.teacher_cache.workers.messages import Advanced, WorkSettings
from medalign.teacher_cache.workers.pool import WorkerOrder, run_workers


@pytest.fixture
def recipe(phantom_weights) -> TeacherRecipe:
    return TeacherRecipe(name="phantom-tiny", weights=str(phantom_weights))


@pytest.fixture
def begun(make_images, run_extract, tmp_path) -> Path:
    """A store of 12 images in 4 shards; one task has written the first shard."""
    run_extract(make_images(12), tmp_path / "s.zarr", task=Task(number=0, count=4))
    return tmp_path / "s.zarr"


def work(store: Path, recipe: TeacherRecipe, images, tell, workers: int = 1) -> None:
    """Compute the pending shards with worker processes."""
    writer = StoreWriter(store)
    order = WorkerOrder(store=store, recipe=recipe, settings=WorkSettings(decode_workers=1, hash_key=None))
    with RunLock(store):
        by_row, _ = assign_images(store, writer.header, images, str)
        run_workers(order, shard_jobs(writer.header, writer.pending(), by_row), tell, workers)
    assert not multiprocessing.active_children()


def test_worker_processes_write_the_same_store(begun, recipe, make_images, run_extract, tmp_path):
    advanced = []
    work(begun, recipe, make_images(12), lambda event: isinstance(event, Advanced) and advanced.append(event.images))
    assert sum(advanced) == 9
    assert finish(begun) == run_extract(make_images(12), tmp_path / "whole.zarr").root_sha256
    assert verify(begun).ok


def test_ctrl_c_stops_the_workers_and_keeps_their_shards(begun, recipe, make_images, run_extract):
    def press(event: object) -> None:
        if isinstance(event, Advanced):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(begun, recipe, make_images(12), press)
    assert 1 <= len(committed_shards(begun)) < 4
    assert not multiprocessing.active_children()
    assert not list(begun.rglob("*.partial"))
    assert run_extract(make_images(12), begun, resume=True).shards_redone == 0


def test_a_killed_worker_is_named(begun, recipe, make_images):
    def shoot(event: object) -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(StoreError, match=r"medalign-worker-0 was killed by SIGKILL \(out of memory\?\); .* --resume"):
        work(begun, recipe, make_images(12), shoot)


def test_an_error_in_a_worker_keeps_its_class(begun, recipe, make_images, tmp_path):
    other = TeacherRecipe(name="phantom-tiny", weights=str(tmp_path / "gone.safetensors"))
    with pytest.raises(InputError, match=r"no weights at .*gone"):
        work(begun, other, make_images(12), lambda event: None)


def test_worker_processes_need_a_recipe(teacher, make_images, run_extract, tmp_path):
    with pytest.raises(SettingsError, match="pass a TeacherRecipe"):
        run_extract(make_images(4), tmp_path / "s.zarr", workers=2)


def test_each_worker_gets_its_own_gpu(recipe, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [recipe.for_worker(number).device for number in range(3)] == ["cpu"] * 3
    gpus = TeacherRecipe(name="phantom-tiny", weights="w", device="cuda")
    assert [gpus.for_worker(number).device for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_tasks_divide_a_store_and_finish_closes_it(make_images, run_extract, truncated, tmp_path):
    out, images = tmp_path / "s.zarr", [*make_images(10), truncated]
    first = run_extract(images, out, task=Task(number=1, count=3))
    assert (first.shards_done, first.images, first.root_sha256, first.failures) == (1, 3, None, ())
    with pytest.raises(
        StoreError, match=r"3 of 4 shards are missing: 0, 2, 3\. Shard S belongs to the --task with number"
    ):
        finish(out)
    assert committed_shards(out) == [1], "looking harms nothing"
    run_extract(images, out, task=Task(number=2, count=3))
    last = run_extract(images, out, task=Task(number=0, count=3))
    assert [failure.image_hash for failure in last.failures] == [truncated.image_hash]
    assert finish(out) == finish(out) == run_extract(images, tmp_path / "whole.zarr").root_sha256
    assert verify(out).ok
    again = run_extract(images, out, task=Task(number=0, count=3))
    assert (again.shards_done, again.shards_reused) == (0, 2)
    assert open_store(out)


def test_a_task_with_other_settings_is_rejected(begun, make_images, run_extract):
    with pytest.raises(StoreError, match="batch_size: 4, not 2"):
        run_extract(make_images(12), begun, task=Task(number=1, count=4), batch_size=4)


def test_finish_fails_while_a_task_is_running(begun, make_images, run_extract):
    with RunLock(begun, [3]):
        with pytest.raises(StoreError, match="another run is writing"):
            finish(begun)
        run_extract(make_images(12), begun, task=Task(number=1, count=4))
    assert committed_shards(begun) == [0, 1]


def test_tasks_that_start_simultaneously_create_one_store(recipe, make_images, run_extract, tmp_path):
    """Each task has its own teacher, because a forward pass temporarily adds hooks to the tower."""
    out, images, problems = tmp_path / "s.zarr", make_images(12), []
    together = threading.Barrier(4)

    def task(number: int) -> None:
        together.wait()
        try:
            run_extract(images, out, task=Task(number=number, count=4), teacher=recipe)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=task, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert finish(out) == run_extract(images, tmp_path / "whole.zarr").root_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "whole.zarr"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_keeps_what_is_committed(small_disk, make_images, run_extract, tmp_path):
    """Each shard of 20 images has 141 KB; a file that fills most of the disk stands for other users' data."""
    out, images = small_disk / "s.zarr", make_images(100)
    ballast = small_disk / "other"
    ballast.write_bytes(b"\0" * 500_000)
    with pytest.raises(StoreError, match=r"is full\. Kept: \d of 5 shards .*Free some space"):
        run_extract(images, out, shard_rows=20)
    kept = len(committed_shards(out))
    assert 0 < kept < 5
    assert not list(out.rglob("E_?/**/*.partial"))
    ballast.unlink()
    resumed = run_extract(images, out, shard_rows=20, resume=True)
    assert resumed.shards_reused == kept
    assert verify(out).ok
    assert resumed.root_sha256 == run_extract(images, tmp_path / "whole.zarr", shard_rows=20).root_sha256


class Note(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_last_task_says_to_run_finish(begun, make_images, run_extract):
    notes = Note()
    for number in (1, 2, 3):
        run_extract(make_images(12), begun, task=Task(number=number, count=4), progress=notes)
    assert notes.notes == [f"all shards are committed: run `medalign teacher finish {begun}` to finish the store"]


def test_a_recipe_computes_in_this_process_too(recipe, make_images, run_extract, tmp_path):
    out = tmp_path / "r.zarr"
    options = ExtractionOptions(grid=PatchGrid(6, 6), batch_size=2, shard_rows=3, threads=1)
    report = extract(recipe, make_images(4), out, options)
    assert report.root_sha256 == run_extract(make_images(4), tmp_path / "s.zarr").root_sha256
