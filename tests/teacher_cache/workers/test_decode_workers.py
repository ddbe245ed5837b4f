"""Decoding processes: the same store as with threads, errors that name the image, no process left behind."""

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.extraction.stage_one import ImageSource, Task, TeacherRecipe, finish
from medalign.teacher_cache.extraction.store_plan import assign_images, default_batch_size, shard_jobs
from medalign.teacher_cache.store.writing.writer import StoreWriter
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.workers import engines
from medalign.teacher_cache.workers.decode_pool import DecodePool
from medalign.teacher_cache.workers.engines import Crew
from medalign.teacher_cache.workers.messages import WorkSettings
from medalign.teacher_cache.workers.pool import WorkerOrder, run_workers
from medalign.teacher_cache.workers.prefetch import FailedImage, PreparedImage, prefetched, prepare_image

SPEC = teacher_spec("phantom-tiny")
PREPARE = partial(prepare_image, spec=SPEC, geometry="pad")


@pytest.fixture
def pool():
    pool = DecodePool(PREPARE, 2, SPEC.image_size)
    yield pool
    pool.close()
    assert not multiprocessing.active_children()


def test_decoding_processes_give_the_same_store_as_threads(make_images, run_extract, truncated, tmp_path):
    images = [*make_images(7), truncated, *make_images(12)[7:]]
    report = run_extract(images, tmp_path / "p.zarr", decode_in="processes")
    assert [failure.image_hash for failure in report.failures] == [truncated.image_hash]
    assert report.root_sha256 == run_extract(images, tmp_path / "t.zarr").root_sha256
    assert not multiprocessing.active_children()


def test_results_are_complete_and_in_order(pool, make_images, truncated, tmp_path):
    """More images than are assigned to the processes, including one that fails and one that is missing."""
    gone = ImageSource(tmp_path / "gone.png", "0" * 64)
    sources = [*make_images(20), truncated, gone, *make_images(12)]
    results = [image for batch in prefetched([sources[:5], sources[5:]], pool, ahead=1) for image in batch]
    assert [image.image_hash for image in results] == [source.image_hash for source in sources]
    for source, result in zip(sources, results, strict=True):
        expected = PREPARE(source)
        if isinstance(expected, FailedImage):
            assert result == expected
        else:
            assert isinstance(result, PreparedImage)
            assert np.array_equal(result.square, expected.square)
            assert (result.pixel_hash, result.size) == (expected.pixel_hash, expected.size)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (signal.SIGKILL, r"out of memory\? Run the command again .* with fewer --decode-workers"),
        (signal.SIGSEGV, r"if this file fails again, leave it out"),
        (signal.SIGBUS, r"is the shared memory \(/dev/shm\) full\?"),
    ],
)
def test_the_image_of_a_process_that_dies_is_named(pool, make_images, code, advice):
    workers = [worker.process for worker in pool._workers.values()]
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    futures = [pool.submit(source) for source in make_images(8)]
    os.kill(workers[0].pid, code)
    os.kill(workers[0].pid, signal.SIGCONT)
    path = make_images(1)[0].path
    with pytest.raises(StoreError, match=rf"medalign-decode-0 was killed by {code.name} while it decoded {path}"):
        futures[0].result()
    with pytest.raises(StoreError, match=advice):
        futures[7].result()
    with pytest.raises(StoreError, match="medalign-decode-0"):
        pool.submit(make_images(1)[0]).result()
    os.kill(workers[1].pid, signal.SIGCONT)


def test_decoders_ignore_ctrl_c(pool, make_images):
    for started in [pool.submit(image) for image in make_images(2)]:  # one for each process
        started.result()
    for worker in pool._workers.values():
        os.kill(worker.process.pid, signal.SIGINT)
    assert isinstance(pool.submit(make_images(1)[0]).result(), PreparedImage)


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_default_kind_and_number_of_decoders(monkeypatch, cores):
    monkeypatch.setattr(engines, "usable_cores", lambda: cores)

    def chosen(device: str, **options) -> tuple[str, int]:
        settings = Crew(**options).work_settings(device, None)
        return settings.decode_in, settings.decode_workers

    assert chosen("cpu") == ("threads", min(8, cores))
    assert chosen("cuda") == (("processes", cores - 1) if cores > 2 else ("threads", cores))
    assert chosen("cuda", workers=cores) == ("threads", 1)
    assert chosen("cuda", engine="ray", workers=cores)[0] == "threads"
    assert chosen("cpu", decode_workers=3, decode_in="processes") == ("processes", 3)


def test_the_default_batch_is_larger_on_a_gpu():
    assert [default_batch_size(device) for device in ("cpu", "cuda", "mps")] == [16, 64, 64]
    recipe = TeacherRecipe(name="phantom-tiny", weights="w", device="cuda:1")
    assert engines.device_of(recipe) == "cuda"


def test_a_worker_process_with_decoders_of_its_own(phantom_weights, make_images, run_extract, tmp_path):
    """Only one, because each starts its own server, which takes time."""
    images, out = make_images(4), tmp_path / "s.zarr"
    run_extract(images, out, task=Task(number=1, count=2), shard_rows=2)
    recipe, writer = TeacherRecipe(name="phantom-tiny", weights=str(phantom_weights)), StoreWriter(out)
    settings = WorkSettings(decode_workers=1, hash_key=None, decode_in="processes")
    order = WorkerOrder(store=out, recipe=recipe, settings=settings)
    by_row, _ = assign_images(out, writer.header, images, str)
    run_workers(order, shard_jobs(writer.header, writer.pending(), by_row), lambda _: None, 1)
    assert not multiprocessing.active_children()
    assert finish(out) == run_extract(images, tmp_path / "t.zarr", shard_rows=2).root_sha256


def test_no_shared_memory_is_left(pool):
    names = [worker.memory.name for worker in pool._workers.values()]
    pool.close()
    if Path("/dev/shm").is_dir():
        assert not [name for name in names if (Path("/dev/shm") / name.strip("/")).exists()]
