"""Parts of local files: always the current bytes, and no signal, stale file or endless wait when a file changes."""

import os
import pickle
import stat

import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.store.access import store_files
from medalign.teacher_cache.store.access.local_filesystem import PlainFileSystem
from medalign.teacher_cache.store.access.store_files import LocalFiles

LENGTH = 200_000
START = 4_321


@pytest.fixture
def store(tmp_path):
    data = os.urandom(2 * LENGTH)
    (tmp_path / "shard").write_bytes(data)
    return LocalFiles(tmp_path), data


def both(files: LocalFiles) -> list[bytes]:
    """A large part and a small one."""
    return [bytes(part) for part in files.read_ranges([("shard", START, LENGTH), ("shard", 7, 9)])]


def test_ranges_match_the_file(store):
    files, data = store
    assert both(files) == [data[START : START + LENGTH], data[7:16]]


def test_bytes_already_read_survive_truncation_of_the_file(store):
    """`cp` and `rsync --inplace` truncate a file that is being read; with a memory map that would raise SIGBUS."""
    files, data = store
    parts = files.read_ranges([("shard", START, LENGTH), ("shard", 7, 9)])
    os.truncate(files.path / "shard", 0)
    assert [bytes(part) for part in parts] == [data[START : START + LENGTH], data[7:16]]


@pytest.mark.parametrize("start", [-1, 2 * LENGTH, 2**62])
def test_ranges_outside_a_file_are_empty_and_allocate_nothing(store, start):
    files, _ = store
    assert [bytes(part) for part in files.read_ranges([("shard", start, 2**40)])] == [b""]


@pytest.mark.parametrize("how", ["read", "open", "read_ranges"])
def test_a_pipe_or_folder_in_place_of_a_file_fails_immediately(tmp_path, how):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for key in ("pipe", "folder"):
        with pytest.raises((OSError, StoreError), match=r"is a pipe|is a folder"):
            getattr(LocalFiles(tmp_path), how)([(key, 0, 5)] if how == "read_ranges" else key)


def test_whole_file_reads_are_bounded(store, monkeypatch):
    files, data = store
    monkeypatch.setattr(store_files, "MOST_WHOLE", len(data))
    assert files.read("shard") == data
    monkeypatch.setattr(store_files, "MOST_WHOLE", len(data) - 1)
    with pytest.raises(OSError, match="larger than"):
        files.read("shard")


def test_a_truncated_file_gives_fewer_bytes(store):
    files, data = store
    both(files)
    os.truncate(files.path / "shard", LENGTH)
    assert both(files) == [data[START:LENGTH], data[7:16]]
    os.truncate(files.path / "shard", 0)
    assert both(files) == [b"", b""]


def test_a_replaced_or_changed_file_is_read_again(store):
    files, data = store
    both(files)
    other = os.urandom(len(data))
    (files.path / "new").write_bytes(other)
    (files.path / "new").rename(files.path / "shard")
    assert both(files) == [other[START : START + LENGTH], other[7:16]]
    with (files.path / "shard").open("rb+") as file:
        file.seek(START)
        file.write(b"changed")
    assert both(files)[0].startswith(b"changed")


@pytest.mark.parametrize("method", ["pipe_file", "put_file"])
def test_folders_of_written_files_follow_the_umask(method, tmp_path):
    """Whoever pushes to a shared folder decides by the umask who can read it."""
    value = b"new" if method == "pipe_file" else tmp_path / "source"
    (tmp_path / "source").write_bytes(b"new")
    before = os.umask(0o027)
    try:
        filesystem = PlainFileSystem(skip_instance_cache=True)
        target = str(tmp_path / "a" / "b" / "file")
        filesystem.pipe_file(target, value) if method == "pipe_file" else filesystem.put_file(str(value), target)
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o750, 0o750]


def test_a_missing_file_is_an_error(store):
    files, _ = store
    both(files)
    (files.path / "shard").unlink()
    with pytest.raises(FileNotFoundError):
        both(files)


def test_local_files_pickle_as_their_path(store):
    files, data = store
    both(files)
    assert both(pickle.loads(pickle.dumps(files))) == [data[START : START + LENGTH], data[7:16]]
