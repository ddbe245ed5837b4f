"""Adding images to a finished store and retrying failed ones, with kills at every step."""

import shutil
from pathlib import Path

import pytest
from medalign.errors import InputError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction import extension as extending
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.store import UnfinishedStore, open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.keyed_hashes import HashKey
from medalign.teacher_cache.store.writing import adoption
from medalign.teacher_cache.workers.engines import Crew


def siblings(store: Path) -> list[str]:
    return sorted(path.name for path in store.parent.iterdir() if path != store and "zarr" in path.name)


def test_an_extension_equals_a_store_of_all_images_if_shards_coincide(teacher, make_images, run_extract, tmp_path):
    """6 images are two whole shards of 3, so the shards of both stores hold the same images."""
    store, images = tmp_path / "s.zarr", make_images(10)
    first = run_extract(images[:6], store)
    report = extend(teacher, images, store)
    whole = run_extract(images, tmp_path / "whole.zarr")
    assert (report.images, report.shards_done, report.profiles) == (4, 2, {"float16": 4})
    assert report.root_sha256 == whole.root_sha256 != first.root_sha256
    assert open_store(store).header.segments == (6, 4)
    assert verify(store).ok
    assert siblings(store) == ["whole.zarr"]


def test_segments_that_do_not_fill_their_shards(teacher, make_images, run_extract, tmp_path):
    """The batches differ, so the values agree only within rounding."""
    store, images = tmp_path / "s.zarr", make_images(12)
    run_extract(images[:4], store)
    extend(teacher, images[2:9], store)
    extend(teacher, images[9:], store, crew=Crew(workers=1))
    extended, whole = open_store(store), open_store(run_extract(images, tmp_path / "whole.zarr").out)
    assert (extended.header.segments, len(extended)) == ((4, 5, 3), 12)
    for source in images:
        assert (extended[source.image_hash].E_v - whole[source.image_hash].E_v).abs().max() < 2e-3
    assert verify(store).ok
    assert run_extract(images, store, resume=True).shards_done == 0


def test_extending_by_known_images_adds_nothing(teacher, make_images, run_extract, tmp_path):
    store = tmp_path / "s.zarr"
    done = run_extract(make_images(4), store)
    report = extend(teacher, make_images(3), store)
    assert (report.images, report.root_sha256) == (0, done.root_sha256)


def test_failed_images_are_retried(teacher, make_images, run_extract, truncated, tmp_path):
    store, images = tmp_path / "s.zarr", make_images(4)
    late = ImageSource(tmp_path / "late.png", make_images(5)[4].image_hash)
    run_extract([*images, truncated, late], store, unreadable=["permission denied", "permission denied"])
    shutil.copy(make_images(5)[4].path, late.path)
    assert extend(teacher, [*images, truncated, late], store).images == 0
    report = extend(teacher, [*images, truncated, late], store, retry_failed=True, unreadable=["permission denied"])
    assert report.images == 2
    assert [failure.image_hash for failure in report.failures] == [truncated.image_hash]
    assert report.unreadable == ("permission denied",)
    assert late.image_hash in open_store(store)
    assert verify(store).ok
    again = extend(teacher, [truncated], store, retry_failed=True, unreadable=["permission denied"])
    assert (again.images, len(again.failures)) == (1, 1)
    assert again.root_sha256 == report.root_sha256
    assert verify(store).ok


def test_unreadable_files_are_added_to_the_recorded_ones(teacher, make_images, run_extract, tmp_path):
    store = tmp_path / "s.zarr"
    run_extract(make_images(2), store, unreadable=["one"])
    assert extend(teacher, make_images(3), store, unreadable=["two"]).unreadable == ("one", "two")
    assert extend(teacher, make_images(3), store, unreadable=[], retry_failed=True).unreadable == ()
    assert verify(store).ok


def test_extend_rejects_unsuitable_stores(teacher, make_images, run_extract, finished, tmp_path):
    with pytest.raises(StoreError, match="hashing: hmac-sha256:"):
        extend(teacher, make_images(9), finished, hash_key=HashKey(b"k" * 32))
    with RunLock(finished), pytest.raises(StoreError, match="another run is writing"):
        extend(teacher, make_images(9), finished)
    shutil.copytree(finished, tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "manifest-sha256.txt").unlink()
    (tmp_path / "s.zarr" / "ledger" / "000000.json").unlink()
    with pytest.raises(UnfinishedStore, match="complete it with `medalign teacher extract --resume`"):
        extend(teacher, make_images(9), tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr" / ".lock").exists()


def test_an_extension_with_a_key(teacher, make_images, run_extract, tmp_path):
    key, store = HashKey(b"k" * 32), tmp_path / "s.zarr"
    run_extract(make_images(2), store, hash_key=key)
    assert extend(teacher, make_images(3), store, hash_key=key).images == 1
    assert make_images(3)[2].image_hash in open_store(store, hash_key=key)


class Crash(BaseException):
    """Stands for a kill: no code in medalign catches it."""


STEPS = [
    (adoption, "_link"),
    (adoption, "_take_shard"),
    (adoption, "write_metadata"),
    (adoption, "replace_unreadable"),
    (adoption.StoreWriter, "finish"),
    (extending, "adopt"),
    (extending, "_remove_adopted"),
]


@pytest.fixture(scope="module")
def begun(make_images, run_extract, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("begun") / "s.zarr"
    run_extract(make_images(4), store)
    return store


@pytest.fixture(scope="module")
def extended_root(teacher, make_images, begun, tmp_path_factory) -> str:
    store = Path(shutil.copytree(begun, tmp_path_factory.mktemp("extended") / "s.zarr"))
    return extend(teacher, make_images(8), store).root_sha256


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("place", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_crash_at_every_step(teacher, make_images, begun, extended_root, tmp_path, monkeypatch, place, step, after):
    store = Path(shutil.copytree(begun, tmp_path / "s.zarr"))
    crash_at(monkeypatch, place, step, after)
    with pytest.raises(Crash):
        extend(teacher, make_images(8), store)
    monkeypatch.undo()
    assert extend(teacher, make_images(8), store).root_sha256 == extended_root
    assert open_store(store).header.segments == (4, 4)
    assert verify(store).ok
    assert siblings(store) == []


def test_remains_of_a_removed_extension_are_deleted(teacher, make_images, begun, tmp_path):
    store = Path(shutil.copytree(begun, tmp_path / "s.zarr"))
    (tmp_path / ".s.zarr.extension.medalign-0123456789abcdef.adopted" / "E_v").mkdir(parents=True)
    (tmp_path / "s.zarr.extension.adopted").mkdir()  # somebody else's
    extend(teacher, make_images(4), store)
    assert siblings(store) == ["s.zarr.extension.adopted"]


def test_an_extension_with_an_unexpected_file_is_not_removed(teacher, make_images, begun, tmp_path, monkeypatch):
    store = Path(shutil.copytree(begun, tmp_path / "s.zarr"))
    notes = tmp_path / "s.zarr.extension" / "notes.txt"
    crash_at(monkeypatch, extending, "adopt", after=False)
    with pytest.raises(Crash):
        extend(teacher, make_images(8), store)
    monkeypatch.undo()
    notes.write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.txt is not part of this extension"):
        extend(teacher, make_images(8), store)
    assert notes.read_text() == "mine"
    notes.unlink()
    extend(teacher, make_images(8), store)
    assert siblings(store) == []


def crash_at(monkeypatch, place, step: str, after: bool) -> None:
    """Raise before or after `step` runs; `finish` does not refer to finishing the side store."""
    original = getattr(place, step)

    def crash(*given, **named):
        if step == "finish" and "extension" in given[0].path.name:
            return original(*given, **named)
        if after:
            original(*given, **named)
        raise Crash

    monkeypatch.setattr(place, step, crash)


def test_an_interrupted_extension_continues_with_its_shards(teacher, make_images, run_extract, tmp_path):
    class StopAfter(Silent):
        left = 4

        def advance(self, steps: int = 1) -> None:
            self.left -= steps
            if self.left <= 0:
                raise KeyboardInterrupt

    store, images = tmp_path / "s.zarr", make_images(12)
    before = run_extract(images[:3], store).root_sha256
    with pytest.raises(KeyboardInterrupt):
        extend(teacher, images, store, progress=StopAfter())
    assert open_store(store).root_sha256 == before, "it can be read all the while"
    with pytest.raises(InputError, match=r"planned images of .* are not among the given ones"):
        extend(teacher, images[:8], store)
    report = extend(teacher, images, store)
    assert (report.shards_reused, report.shards_done) == (1, 2)
    assert report.root_sha256 == run_extract(images, tmp_path / "whole.zarr").root_sha256
