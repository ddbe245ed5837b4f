"""Parts of local files: what is there now, and never a signal, a stale file or an endless wait where a file changed."""

import os
import pickle

import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.store.access import store_files
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


def test_parts_are_those_of_the_file(store):
    files, data = store
    assert both(files) == [data[START : START + LENGTH], data[7:16]]


def test_bytes_that_were_read_stay_when_the_file_is_cut(store):
    """`cp` and `rsync --inplace` cut a file that a reader still looks at: a mapped one would end it by SIGBUS."""
    files, data = store
    parts = files.read_ranges([("shard", START, LENGTH), ("shard", 7, 9)])
    os.truncate(files.path / "shard", 0)
    assert [bytes(part) for part in parts] == [data[START : START + LENGTH], data[7:16]]


@pytest.mark.parametrize("start", [-1, 2 * LENGTH, 2**62])
def test_parts_outside_a_file_are_empty_and_take_no_memory(store, start):
    files, _ = store
    assert [bytes(part) for part in files.read_ranges([("shard", start, 2**40)])] == [b""]


@pytest.mark.parametrize("how", ["read", "open", "read_ranges"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_an_error_at_once(tmp_path, how):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for key in ("pipe", "folder"):
        with pytest.raises((OSError, StoreError), match=r"is a pipe|is a folder"):
            getattr(LocalFiles(tmp_path), how)([(key, 0, 5)] if how == "read_ranges" else key)


def test_a_file_that_is_read_whole_is_bounded(store, monkeypatch):
    files, data = store
    monkeypatch.setattr(store_files, "MOST_WHOLE", len(data))
    assert files.read("shard") == data
    monkeypatch.setattr(store_files, "MOST_WHOLE", len(data) - 1)
    with pytest.raises(OSError, match="larger than"):
        files.read("shard")


def test_a_file_that_became_shorter_gives_fewer_bytes(store):
    files, data = store
    both(files)
    os.truncate(files.path / "shard", LENGTH)
    assert both(files) == [data[START:LENGTH], data[7:16]]
    os.truncate(files.path / "shard", 0)
    assert both(files) == [b"", b""]


def test_a_file_that_was_replaced_or_changed_is_read_anew(store):
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


def test_a_file_that_is_gone_is_an_error(store):
    files, _ = store
    both(files)
    (files.path / "shard").unlink()
    with pytest.raises(FileNotFoundError):
        both(files)


def test_files_pickle_as_their_path(store):
    files, data = store
    both(files)
    assert both(pickle.loads(pickle.dumps(files))) == [data[START : START + LENGTH], data[7:16]]
