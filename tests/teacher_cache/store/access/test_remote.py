"""Stores behind URLs, on real servers, read like stores on a disk; and the errors if they cannot be read."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from medalign.errors import StoreError
from medalign.teacher_cache.store import MissingTeacherRow, UnfinishedStore, open_store
from medalign.teacher_cache.store.access.location import check_location
from medalign.teacher_cache.store.access.remote import RemoteFiles, open_files
from medalign.teacher_cache.store.access.server_limits import Limits
from medalign.teacher_cache.store.access.store_files import LocalFiles
from servers import CREDENTIALS, FileServer, Nginx, requires_nginx, s3_bucket
from stores import name_of, write_store

IMAGES = range(11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with `store.zarr`: eleven images, one of which failed, and one shard in a wider profile."""
    folder = tmp_path_factory.mktemp("served")
    write_store(folder / "store.zarr", IMAGES, failing=[9], wide={1: "float32"})
    return folder


@pytest.fixture(scope="module")
def s3(folder):
    """A bucket on a real S3 server with the store in it."""
    with s3_bucket("lab") as client:
        for file in (folder / "store.zarr").rglob("*"):
            if file.is_file():
                client.upload_file(str(file), "lab", file.relative_to(folder).as_posix())
        client.upload_file(str(folder / "store.zarr/zarr.json"), "lab", "half.zarr/zarr.json")
        yield "s3://lab"


@pytest.fixture(scope="module")
def http(folder):
    with FileServer(folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def nginx(folder, tmp_path_factory):
    with Nginx(tmp_path_factory.mktemp("nginx"), folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def memory(folder):
    import fsspec

    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(folder / "store.zarr"), "/lab/store.zarr", recursive=True)
    yield "memory://lab"
    filesystem.rm("/lab", recursive=True)


KINDS = ["memory", "http", pytest.param("nginx", marks=requires_nginx), "s3"]


@pytest.fixture
def url(request) -> str:
    return f"{request.getfixturevalue(request.param)}/store.zarr"


everywhere = pytest.mark.parametrize("url", KINDS, indirect=True)


@everywhere
def test_files_behind_a_url_equal_those_on_disk(url, folder):
    near, far = LocalFiles(folder / "store.zarr"), open_files(url + "/")
    assert isinstance(far, RemoteFiles)
    assert far.location == url
    key = "E_v/c/0/0/0"
    size = near.size(key)
    assert far.read("index.parquet") == near.read("index.parquet")
    assert (far.size(key), far.exists(key), far.exists("E_v/c/9/0/0")) == (size, True, False)
    ranges = [(key, 0, 5), ("zarr.json", 3, 4), (key, size - 3, 3), (key, size - 3, 9), (key, size + 5, 2), (key, 7, 0)]
    assert far.read_ranges(ranges) == near.read_ranges(ranges)
    assert far.read_ranges([]) == []
    with far.open("zarr.json") as file:
        file.seek(-4, 2)
        assert file.read() == near.read("zarr.json")[-4:]
    for work in (lambda: far.read("gone"), lambda: far.size("gone"), lambda: far.read_ranges([("gone", 0, 1)])):
        with pytest.raises(FileNotFoundError, match=f"{url}/gone"):
            work()


@everywhere
def test_a_store_behind_a_url_reads_the_same(url, folder):
    near, far = open_store(folder / "store.zarr"), open_store(url)
    hashes = [name_of(image) for image in (10, 0, 5, 0, 7)]
    assert (far.header, far.root_sha256, far.failures) == (near.header, near.root_sha256, near.failures)
    assert torch.equal(far.read(hashes).E_v, near.read(hashes).E_v)
    assert torch.equal(far.read(hashes).E_a, near.read(hashes).E_a)
    with pytest.raises(MissingTeacherRow, match="which failed during extraction: no image"):
        far.read([name_of(9)])


def first_value(store, image_hash: str) -> float:
    return float(store[image_hash].E_v[0, 0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize(
    ("url", "start", "workers"),
    # A fork server keeps the environment of its start, perhaps with other credentials: not with s3.
    [("http", "forkserver", 1), ("http", "spawn", 1), ("s3", "fork", 4), ("s3", "spawn", 1)],
    indirect=["url"],
)
def test_data_loader_workers_read_from_urls(url, folder, start, workers):
    store, hashes = open_store(url), [name_of(image) for image in IMAGES if image != 9]
    expected = open_store(folder / "store.zarr").read(hashes)
    store.read(hashes[:1])  # the parent is connected before it forks
    loader = torch.utils.data.DataLoader(
        store,
        batch_size=None,
        sampler=hashes,
        num_workers=workers,
        multiprocessing_context=start,
        timeout=60,
    )
    for position, target in enumerate(loader):
        assert torch.equal(target.E_v, expected.E_v[position])
    assert torch.equal(store.read(hashes).E_v, expected.E_v), "the parent still reads"


def test_a_store_behind_a_url_pickles_as_its_url(s3):
    store = open_store(f"{s3}/store.zarr")
    first = store[name_of(0)].E_v
    assert len(pickle.dumps(store)) < 500
    assert torch.equal(pickle.loads(pickle.dumps(store))[name_of(0)].E_v, first)


def test_only_requested_rows_are_transferred(folder):
    with FileServer(folder) as server:
        store = open_store(f"{server.url}/store.zarr")
        store.read([name_of(0)])
        before, requests = server.sent, len(server.paths)
        store.read([name_of(1), name_of(2)])
        row = sum(array.nbytes + 4 for array in store.header.arrays())
        assert server.sent - before == 2 * row
        assert len(server.paths) - requests == 4


def test_a_server_without_range_requests_is_rejected(folder):
    with FileServer(folder, ranges=False) as server, pytest.raises(StoreError, match=r"ignores range requests.*nginx"):
        open_store(f"{server.url}/store.zarr").read([name_of(0)])
    assert not any("/c/" in path for path in server.paths), "no shard was requested"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("medalign.teacher_cache.store.access.connection.LIMITS", Limits(pauses=(0.0, 0.0)))


@pytest.mark.parametrize("failures", [[500], [503, 0], [0, 429]])
def test_transient_failures_are_retried(folder, impatient, failures):
    with FileServer(folder) as server:
        files = RemoteFiles(f"{server.url}/store.zarr")
        assert files.read_ranges([("zarr.json", 0, 1)]) == [b"{"]
        server.failures += failures
        assert files.read_ranges([("zarr.json", 0, 1), ("E_a/zarr.json", 0, 1)]) == [b"{", b"{"]
        server.failures += failures
        assert files.size("zarr.json") == (folder / "store.zarr/zarr.json").stat().st_size


def test_permanent_failures_are_reported(folder, impatient):
    with FileServer(folder) as server:
        files = RemoteFiles(f"{server.url}/store.zarr")
        server.failures += [503, 502, 500]
        with pytest.raises(
            StoreError, match=r"does not respond \(zarr\.json, 3 attempts in 0 s\): 500.*AWS_ENDPOINT_URL"
        ):
            files.read("zarr.json")
        server.failures += [403]
        with pytest.raises(StoreError, match=r"access to .*/zarr\.json is denied: 403.*docs/sharing\.md"):
            files.read("zarr.json")
        server.failures += [418]
        with pytest.raises(StoreError, match="the server rejects the request: 418"):
            files.read("zarr.json")
    with pytest.raises(StoreError, match=r"does not respond \(zarr\.json"):
        open_store(f"{server.url}/store.zarr")


def test_missing_buckets_and_manifests_are_reported(s3):
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/a is not a teacher store: zarr\.json does not exist"):
        open_store("s3://no-such-bucket/a")
    with pytest.raises(
        UnfinishedStore, match=r"half\.zarr is unfinished: it has no manifest-sha256\.txt\. Push it again"
    ):
        open_store(f"{s3}/half.zarr")


def test_missing_credentials_are_reported_without_leaking_secrets(s3, monkeypatch, tmp_path):
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match=r"is denied: Unable to locate credentials.*docs/sharing\.md"):
        open_store(f"{s3}/store.zarr")


def test_credentials_and_queries_in_urls_are_rejected_and_not_echoed():
    for url in ("https://me:do-not-print-me@host/store.zarr", "s3://bucket/store?sig=do-not-print-me"):
        with pytest.raises(StoreError) as refused:
            open_store(url)
        assert "do-not-print-me" not in str(refused.value)
    assert check_location("/a?b/c#d/") == "/a?b/c#d", "in a path these are ordinary characters"


READ_FROM_HUB = """
from pathlib import Path
from medalign.progress import Silent
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.store import open_store
store = open_store("hf://datasets/lab/chests/store.zarr")
print(float(store.read({hashes}).E_v.sum()), store.files.exists("gone"))
pull("hf://datasets/lab/chests/store.zarr", Path({out!r}), progress=Silent())
"""


def test_a_store_on_a_hugging_face_hub_reads_the_same(folder, tmp_path):
    """Uses the hub's own client, in a separate process, because the test suite is set to offline mode."""
    hashes = [name_of(image) for image in (10, 0, 5)]
    with FileServer(folder, hub="lab/chests") as server:
        code = READ_FROM_HUB.format(hashes=hashes, out=str(tmp_path / "pulled.zarr"))
        environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "do-not-print-me"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    expected = float(open_store(folder / "store.zarr").read(hashes).E_v.sum())
    assert done.stdout.split() == [str(expected), "False"], done.stderr
    for file in filter(Path.is_file, (folder / "store.zarr").rglob("*")):
        assert (tmp_path / "pulled.zarr" / file.relative_to(folder / "store.zarr")).read_bytes() == file.read_bytes()


def test_unknown_protocols_are_reported():
    with pytest.raises(StoreError, match="gopher:// is not supported: use s3"):
        open_store("gopher://host/store.zarr")


def test_a_local_store_loads_no_remote_package(folder):
    probe = (
        "import sys; from medalign.teacher_cache.store import open_store\n"
        f"open_store({str(folder / 'store.zarr')!r})[{name_of(0)!r}]\n"
        "print([name for name in ('fsspec', 's3fs', 'aiohttp') if name in sys.modules])\n"
        "sys.modules['s3fs'] = None\n"
        "try: open_store('s3://a/b')\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[]",
        "StoreError s3:// requires a package that is not installed: pip install 'medalign[remote]'",
    ]
