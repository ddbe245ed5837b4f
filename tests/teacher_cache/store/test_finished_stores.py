"""A finished store stays finished: finishing it again changes nothing, and a kill in between is recoverable."""

import shutil
from pathlib import Path

import pytest
from forgeries import version_1_store
from harms import contents
from medalign.errors import InputError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction import extension as extend_module
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.store import UnfinishedStore, open_store
from medalign.teacher_cache.store.checking.verification import verify
from stores import name_of, write_store

QUIET = Silent()


class Killed(BaseException):
    """Stands for `kill -9`: no code catches it."""


@pytest.fixture
def store(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "s.zarr"))


@pytest.fixture
def other_reasons(store, teacher, make_images, truncated, tmp_path) -> dict[str, bytes]:
    """The store after `extend --retry-failed` with different reasons for unreadable files and nothing else."""
    undisturbed = Path(shutil.copytree(store, tmp_path / "undisturbed.zarr"))
    retry(undisturbed, teacher, make_images)
    assert contents(undisturbed) != contents(store)
    return contents(undisturbed)


def retry(store: Path, teacher, make_images, retry_failed: bool = True) -> None:
    """The failed image is not among the given ones, so nothing is computed."""
    extend(teacher, make_images(8), store, unreadable=["no permission"], retry_failed=retry_failed)


def kill_before(monkeypatch, name: str) -> None:
    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(extend_module, name, die)


@pytest.mark.parametrize("step", ["replace_unreadable", "StoreWriter"])
@pytest.mark.parametrize("helper", ["the same command", "repair", "finish"])
def test_a_kill_while_reasons_are_replaced_is_recoverable(
    store, teacher, make_images, other_reasons, monkeypatch, step, helper
):
    before = contents(store)
    with monkeypatch.context() as patch:
        kill_before(patch, step)
        with pytest.raises(Killed):
            retry(store, teacher, make_images)
    with pytest.raises(
        UnfinishedStore, match=r"extension, a repair or another change was interrupted\. Run that command again"
    ):
        open_store(store)
    if helper == "repair":
        assert not repair(store).left
    elif helper == "finish":
        finish(store)
    else:
        retry(store, teacher, make_images)
    is_done = helper == "the same command" or step == "StoreWriter"
    assert contents(store) == (other_reasons if is_done else before)
    retry(store, teacher, make_images)
    assert contents(store) == other_reasons
    assert verify(store).ok


def test_another_extension_works_after_that_kill(store, teacher, make_images, monkeypatch):
    with monkeypatch.context() as patch:
        kill_before(patch, "replace_unreadable")
        with pytest.raises(Killed):
            retry(store, teacher, make_images)
    extend(teacher, make_images(9), store)
    assert len(open_store(store)) == 9
    assert verify(store).ok


def test_a_store_without_a_shard_cannot_be_extended(store, teacher, make_images):
    (store / "manifest-sha256.txt").unlink()
    (store / "ledger/000001.json").unlink()
    with pytest.raises(UnfinishedStore, match="extract --resume"):
        extend(teacher, make_images(8), store, retry_failed=True)


def test_an_interrupted_extension_requires_its_own_images(store, teacher, make_images, monkeypatch):
    with monkeypatch.context() as patch:
        kill_before(patch, "adopt")
        with pytest.raises(Killed):
            extend(teacher, make_images(9), store)
    with pytest.raises(
        InputError, match=r"an interrupted extension of .* has images that are not among the given ones"
    ):
        extend(teacher, make_images(8), store)
    (store / "manifest-sha256.txt").unlink()  # as if the kill had come a little later
    with pytest.raises(StoreError, match=r"an extension of .* was interrupted: run"):
        finish(store)
    extend(teacher, make_images(9), store)
    assert len(open_store(store)) == 9
    assert verify(store).ok


@pytest.mark.parametrize("command", ["finish", "extract --resume", "extend"])
def test_finishing_again_writes_nothing(store, command, teacher, make_images, truncated, run_extract):
    """Not even a card that another version of medalign rendered differently."""
    card = store / "README.md"
    card.write_text("the words of another version\n")
    relist(store, "README.md")
    before = {path: path.stat().st_mtime_ns for path in sorted(store.rglob("*")) if path.is_file()}
    images = make_images(8)
    run = {
        "finish": lambda: finish(store),
        "extract --resume": lambda: run_extract([*images[:4], truncated, *images[4:]], store, resume=True),
        "extend": lambda: extend(teacher, images, store),
    }
    run[command]()
    assert {path: path.stat().st_mtime_ns for path in sorted(store.rglob("*")) if path.is_file()} == before
    assert card.read_text() == "the words of another version\n"


def relist(store: Path, key: str) -> None:
    from hashlib import sha256

    manifest = store / "manifest-sha256.txt"
    lines = [line for line in manifest.read_text().splitlines() if not line.endswith(f"  {key}")]
    lines.append(f"{sha256((store / key).read_bytes()).hexdigest()}  {key}")
    manifest.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:])))


def test_finish_does_not_change_a_finished_store_of_format_1(tmp_path):
    old = version_1_store(tmp_path / "old.zarr")
    before = contents(old)
    assert finish(old) == open_store(old).root_sha256
    assert contents(old) == before


def test_finish_rewrites_lost_files(store):
    before = contents(store)
    for key in ("README.md", "failures.parquet"):
        (store / key).unlink()
        finish(store)
        assert contents(store) == before


def test_copies_do_not_overwrite_other_stores(tmp_path):
    source = write_store(tmp_path / "source.zarr", range(5))
    more = write_store(tmp_path / "more.zarr", range(5, 8))
    there = write_store(tmp_path / "there.zarr", range(3))
    foreign = write_store(tmp_path / "foreign.zarr", range(3), teacher="another")
    before = contents(there)
    wanted = [Wanted(image_hash=name_of(4))]
    for out, message in (
        (there, "of other images with 3 images"),
        (foreign, r"of another teacher or settings \(another\)"),
    ):
        for copy, images in (
            (lambda out=out: subset(str(source), out, wanted, progress=QUIET), "1 image;"),
            (lambda out=out: merge([str(source), str(more)], out, progress=QUIET), "8 images;"),
        ):
            with pytest.raises(
                StoreError, match=rf"is a finished store {message}.*but this copy has {images}"
            ) as caught:
                copy()
            assert not any(word in str(caught.value) for word in ("segments", "plan_sha256", "created"))
    assert contents(there) == before
    (there / "manifest-sha256.txt").unlink()
    with pytest.raises(StoreError, match=r"is an unfinished store of other images.*or remove it"):
        subset(str(source), there, wanted, progress=QUIET)
