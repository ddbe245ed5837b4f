"""Sources and destinations that change during a transfer: swapped stores, two pushes, full disks; misspelled URLs."""

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest
from medalign.errors import MedalignError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.sharing import push as push_module
from medalign.teacher_cache.sharing.destination import Destination
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import MARKER, push
from medalign.teacher_cache.sharing.steady_source import ChangedStore
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.access.location import check_location
from medalign.teacher_cache.store.writing.writer import ShardInProgress
from servers import FileServer
from stores import name_of, write_store

QUIET = Silent()


@pytest.fixture(scope="module")
def labs(tmp_path_factory) -> Path:
    """Two stores with the same images, settings and sizes, but different targets: `one.zarr` and `two.zarr`."""
    folder = tmp_path_factory.mktemp("labs")
    write_store(folder / "one.zarr", range(11))
    hashes = [name_of(image) for image in range(11)]
    write_store(folder / "two.zarr", range(20, 31), hashes=hashes)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class SwappingServer(FileServer):
    """Serves `one.zarr` as s.zarr, and `two.zarr` from the n-th request for a row on."""

    def __init__(self, root: Path, after: int, counted: str = "/") -> None:
        super().__init__(root)
        self.after, self.counted = after, counted
        self.requests = 0

    def which(self, path: str) -> str:
        with self.counting:
            self.requests += self.counted in path
            return "one.zarr" if self.requests <= self.after else "two.zarr"


@pytest.fixture
def swapping(labs, monkeypatch):
    """Creates a server that swaps stores; its handler opens a file when it is requested."""
    import servers

    original = servers._Handler.do_GET

    def do_GET(handler) -> None:
        if isinstance(handler.server, SwappingServer):
            handler.path = handler.path.replace("/s.zarr", f"/{handler.server.which(handler.path)}")
        original(handler)

    monkeypatch.setattr(servers._Handler, "do_GET", do_GET)
    monkeypatch.setattr(servers._Handler, "do_HEAD", do_GET)
    return lambda after, counted="/": SwappingServer(labs, after, counted)


def roots(labs: Path) -> tuple[str, str]:
    return open_store(labs / "one.zarr").root_sha256, open_store(labs / "two.zarr").root_sha256


@pytest.mark.parametrize("after", [12, 30])
def test_a_store_that_changes_during_a_pull_is_reported_with_both_root_digests(labs, swapping, tmp_path, after):
    with swapping(after) as server, pytest.raises(ChangedStore) as changed:
        pull(f"{server.url}/s.zarr", tmp_path / "out.zarr", progress=QUIET)
    first, second = roots(labs)
    assert second in str(changed.value)
    assert after == 12 or first in str(changed.value), (
        "the index, which has the root digest, is fetched after the lengths"
    )
    assert not (tmp_path / "out.zarr").exists()
    pull(str(labs / "two.zarr"), tmp_path / "out.zarr", progress=QUIET)
    assert contents(tmp_path / "out.zarr") == contents(labs / "two.zarr"), "what was kept does no harm"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_store_that_changes_during_a_partial_pull_is_reported_with_both_root_digests(labs, swapping, tmp_path, after):
    """Rows are verified with the first store's digests, so damage may be detected before the change."""
    wanted = [Wanted(image_hash=name_of(image)) for image in (0, 5, 10)]
    with swapping(after, "/c/") as server:
        with pytest.raises(StoreError) as refused:
            subset(f"{server.url}/s.zarr", tmp_path / "out.zarr", wanted, progress=QUIET)
        message = str(refused.value)
    assert (
        all(root in message for root in roots(labs)) or "the bytes of another row" in message or "checksum" in message
    )
    with pytest.raises(StoreError):
        open_store(tmp_path / "out.zarr")


def test_a_change_after_the_last_row_is_detected(labs, swapping, tmp_path, monkeypatch):
    wanted = [Wanted(image_hash=name_of(3))]
    original = ShardInProgress.commit
    with swapping(10_000) as server:

        def swap(shard: ShardInProgress) -> None:
            original(shard)
            server.after = -1

        monkeypatch.setattr(ShardInProgress, "commit", swap)
        with pytest.raises(ChangedStore) as changed:
            subset(f"{server.url}/s.zarr", tmp_path / "out.zarr", wanted, progress=QUIET)
    assert all(root in str(changed.value) for root in roots(labs))


def test_a_local_store_that_changes_during_a_merge_is_detected(labs, tmp_path, monkeypatch):
    shutil.copytree(labs / "one.zarr", tmp_path / "a.zarr")
    other = write_store(tmp_path / "b.zarr", range(40, 43))
    from medalign.teacher_cache.store.writing import row_copies as copying

    original = copying._copy_shard

    def swap(*arguments: object) -> None:
        original(*arguments)
        shutil.rmtree(tmp_path / "a.zarr")
        shutil.copytree(labs / "two.zarr", tmp_path / "a.zarr")

    monkeypatch.setattr(copying, "_copy_shard", swap)
    with pytest.raises(StoreError) as refused:
        merge([str(tmp_path / "a.zarr"), str(other)], tmp_path / "sum.zarr", progress=QUIET)
    message = str(refused.value)
    assert all(root in message for root in roots(labs)) or "the bytes of another row" in message


def test_a_resumed_subset_mixes_no_rows_of_another_store(labs, tmp_path, monkeypatch):
    """One shard was committed from the first store; the source is the second store when the command runs again."""
    from medalign.teacher_cache.store.writing import row_copies as copying

    wanted = [Wanted(image_hash=name_of(image)) for image in range(11)]
    shutil.copytree(labs / "one.zarr", tmp_path / "a.zarr")
    original = copying._copy_shard

    def once(writer, number, *rest) -> None:
        if number:
            raise KeyboardInterrupt
        original(writer, number, *rest)

    monkeypatch.setattr(copying, "default_shard_rows", lambda *_: 4)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy_shard", once)
        with pytest.raises(KeyboardInterrupt):
            subset(str(tmp_path / "a.zarr"), tmp_path / "out.zarr", wanted, progress=QUIET)
    shutil.rmtree(tmp_path / "a.zarr")
    shutil.copytree(labs / "two.zarr", tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"shard 0 of .* would be a mixture: remove"):
        subset(str(tmp_path / "a.zarr"), tmp_path / "out.zarr", wanted, progress=QUIET)


# ---- pushes


def test_a_resumed_push_compares_digests(labs, tmp_path):
    """A file with the right size but other bytes is sent again, before and after the manifest was written."""
    out = tmp_path / "out.zarr"
    push(labs / "one.zarr", str(out), allow=None, progress=QUIET)
    for published in (True, False):
        shutil.copy(labs / "two.zarr/E_v/c/1/0/0", out / "E_v/c/1/0/0")
        if not published:
            manifest = (out / "manifest-sha256.txt").read_bytes()
            (out / "manifest-sha256.txt").unlink()
            (out / f"{MARKER}-{hashlib.sha256(manifest).hexdigest()}").touch()
        report = push(labs / "one.zarr", str(out), allow=None, progress=QUIET)
        assert contents(out) == contents(labs / "one.zarr")
        assert report.files_there_before == report.files - 2


def test_two_pushes_to_one_destination_exclude_each_other(labs, tmp_path, monkeypatch):
    """Both see an empty destination before either writes its marker: neither publishes a mixture."""
    out, meeting = tmp_path / "out.zarr", threading.Barrier(2, timeout=20)
    original, seen = Destination.sizes, threading.local()

    def sizes(self):
        found = original(self)
        if not getattr(seen, "met", False):
            seen.met = True
            meeting.wait()
        return found

    monkeypatch.setattr(Destination, "sizes", sizes)
    errors: list[Exception] = []

    def run(name: str) -> None:
        try:
            push(labs / name, str(out), allow=None, progress=QUIET)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one.zarr", "two.zarr")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors
    refusals = (
        "unfinished push of another store",
        "another push has taken",
        "already contains another store",
        "is not empty",
    )
    assert all(any(refusal in str(error) for refusal in refusals) for error in errors), errors
    whole, stores = contents(out), [contents(labs / "one.zarr"), contents(labs / "two.zarr")]
    if len(errors) < 2:
        assert whole in stores
    elif whole:  # one claimed it and saw the other's marker at the end: its files are there, and unpublished
        (marker,) = (key for key in whole if key.startswith(MARKER))
        (mine,) = (
            store for store in stores if marker.endswith(hashlib.sha256(store["manifest-sha256.txt"]).hexdigest())
        )
        assert "manifest-sha256.txt" not in whole
        assert {**mine, marker: b""}.items() >= whole.items()


def test_two_pushes_that_both_give_up_leave_one_that_can_be_finished(labs, tmp_path, monkeypatch):
    """The second writes its marker while the first uploads, and removes it after the first has seen it."""
    out, original = tmp_path / "out.zarr", push_module._require_whole
    errors: list[StoreError] = []

    def require_whole(target, marker, sizes):
        delete = Destination.delete

        def seen_first(self, key):
            with pytest.raises(StoreError, match="another push has taken"):
                original(target, marker, sizes)
            delete(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(Destination, "delete", seen_first)
            with pytest.raises(StoreError, match="unfinished push of another store") as refused:
                push(labs / "two.zarr", str(out), allow=None, progress=QUIET)
        errors.append(refused.value)
        raise StoreError("as the first one saw it")

    monkeypatch.setattr(push_module, "_require_whole", require_whole)
    with pytest.raises(StoreError, match="as the first one saw it"):
        push(labs / "one.zarr", str(out), allow=None, progress=QUIET)
    assert len(errors) == 1
    assert not (out / "manifest-sha256.txt").exists()
    monkeypatch.setattr(push_module, "_require_whole", original)
    push(labs / "one.zarr", str(out), allow=None, progress=QUIET)
    assert contents(out) == contents(labs / "one.zarr")


def test_a_push_stops_if_another_one_has_taken_its_destination(labs, tmp_path, monkeypatch):
    out = tmp_path / "out.zarr"
    original = push_module._upload_all

    def upload(*arguments: object) -> None:
        original(*arguments)
        (out / f"{MARKER}-{'0' * 64}").touch()

    monkeypatch.setattr(push_module, "_upload_all", upload)
    with pytest.raises(StoreError, match="another push has taken"):
        push(labs / "one.zarr", str(out), allow=None, progress=QUIET)
    assert not (out / "manifest-sha256.txt").exists()


# ---- disks


def test_too_little_disk_space_is_reported_before_anything_is_written(labs, tmp_path, monkeypatch):
    pack(labs / "one.zarr", tmp_path / "one.zip", allow=None, progress=QUIET)
    wanted = [Wanted(image_hash=name_of(image)) for image in range(8)]
    monkeypatch.setattr("medalign.teacher_cache.store.filesystem.disk_space.free_bytes", lambda _: 100)
    for work in (
        lambda: pull(str(labs / "one.zarr"), tmp_path / "a", progress=QUIET),
        lambda: pack(labs / "one.zarr", tmp_path / "a", allow=None, progress=QUIET),
        lambda: unpack(tmp_path / "one.zip", tmp_path / "a", progress=QUIET),
        lambda: push(labs / "one.zarr", str(tmp_path / "a"), allow=None, progress=QUIET),
        lambda: subset(str(labs / "one.zarr"), tmp_path / "b", wanted, progress=QUIET),
        lambda: merge([str(labs / "one.zarr"), str(labs / "two.zarr")], tmp_path / "c", progress=QUIET),
    ):
        with pytest.raises(
            StoreError, match=r"not enough space for .* on the disk of .*: it needs [\d.]+ KiB, but 100 bytes are free"
        ):
            work()
    assert not (tmp_path / "a").exists() or not (tmp_path / "a/zarr.json").exists()


def test_a_disk_that_fills_up_during_a_push_is_reported(labs, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    monkeypatch.setattr("medalign.teacher_cache.store.access.local_filesystem.PlainFileSystem.put_file", full)
    with pytest.raises(OSError, match="No space left"):
        push(labs / "one.zarr", str(tmp_path / "out.zarr"), allow=None, progress=QUIET)


# ---- names of places

MISSPELLED = [
    ("s3:/bucket/x", "write s3://bucket/x"),
    ("http:/host/x", "write http://host/x"),
    ("gs:/bucket/x", "write gs://bucket/x"),
    ("s3:bucket/x", "write s3://bucket/x"),
    ("S3://bucket/x", "lowercase, s3://"),
    ("Https://host/x", "lowercase, https://"),
    ("s4://bucket/x", "s4:// is not supported"),
    ("htp://host/x", "htp:// is not supported"),
    ("s3:///x", "has no host, bucket"),
    ("https:///x", "has no host, bucket"),
    ("http://host:port/x", "host or port is invalid"),
    ("simplecache::s3://bucket/x", "a chained URL"),
    ("zip://a::https://host/x", "a chained URL"),
]


@pytest.mark.parametrize(("location", "message"), MISSPELLED, ids=[location for location, _ in MISSPELLED])
def test_misspelled_urls_are_rejected_and_create_no_folder(labs, tmp_path, monkeypatch, location, message):
    monkeypatch.chdir(tmp_path)
    for work in (
        lambda: open_store(location),
        lambda: pull(location, tmp_path / "out", progress=QUIET),
        lambda: push(labs / "one.zarr", location, allow=None, progress=QUIET),
        lambda: merge([str(labs / "one.zarr"), location], tmp_path / "out", progress=QUIET),
    ):
        with pytest.raises(MedalignError, match=message):
            work()
    assert list(tmp_path.iterdir()) == []


SECRET = "do-not-print-me"


@pytest.mark.parametrize(
    "location",
    [
        f"https://me:{SECRET}@host/x",
        f"https://{SECRET}@host/x",
        f"https://me:a/{SECRET}@host/x",
        f"https://me:a@{SECRET}/b@host/x",
        f"https:/me:{SECRET}@host/x",
        f"HTTPS://me:{SECRET}@host/x",
        f"s4://me:{SECRET}@host/x",
        f"s3://bucket/x?X-Amz-Signature={SECRET}",
        f"gs://bucket/x?X-Goog-Signature={SECRET}&a=b",
        f"https://account.host/x?sv=1&sig={SECRET}",
        f"https://host/x#access_token={SECRET}",
        f"simplecache::s3://me:{SECRET}@bucket/x",
        f"zip://a::https://me:{SECRET}@host/x",
        f"https://me:{SECRET}@host:port/x",
    ],
)
def test_secrets_in_urls_are_rejected_and_not_echoed(labs, tmp_path, location):
    for work in (
        lambda: open_store(location),
        lambda: check_location(location),
        lambda: pull(location, tmp_path / "out", progress=QUIET),
        lambda: push(labs / "one.zarr", location, allow=None, progress=QUIET),
    ):
        with pytest.raises(StoreError) as refused:
            work()
        error: BaseException | None = refused.value
        while error is not None:
            assert SECRET not in str(error)
            error = error.__cause__


def test_paths_that_are_not_urls_stay_paths():
    for path in ("/a?b/c#d", "a b", "c:/x", "./s3:/x", "run::1", "x@y", "a:b"):
        assert check_location(path) == path
