"""Views of files: the same bytes as reading, and never a signal or a stale file where a file has changed."""

import os
import pickle
import sys

import pytest
from medalign.teacher_cache.store import mapping
from medalign.teacher_cache.store.access import LocalFiles
from medalign.teacher_cache.store.mapping import FileViews

LENGTH = 200_000
START = 4_321

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux alone")


@pytest.fixture
def store(tmp_path):
    data = os.urandom(2 * LENGTH)
    (tmp_path / "shard").write_bytes(data)
    return LocalFiles(tmp_path), data


def both(files: LocalFiles) -> list[bytes]:
    """A large part and a small one."""
    return [bytes(part) for part in files.read_ranges([("shard", START, LENGTH), ("shard", 7, 9)])]


def test_views_hold_what_reading_gives(store, monkeypatch):
    files, data = store
    expected = [data[START : START + LENGTH], data[7:16]]
    assert both(files) == both(files) == expected
    monkeypatch.setattr(mapping, "_POPULATE_READ", 12345)  # a kernel that does not know the advice
    assert both(LocalFiles(files.path)) == expected
    monkeypatch.setattr(FileViews, "view", lambda *_: None)  # as where files are not mapped
    assert both(files) == expected


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


def test_a_file_that_is_gone_is_an_error_also_while_it_is_mapped(store):
    files, _ = store
    both(files)
    (files.path / "shard").unlink()
    with pytest.raises(FileNotFoundError):
        both(files)


@needs_linux
def test_only_the_files_used_last_stay_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "_FILES", 2)
    views = FileViews()
    contents = {}
    for name in "abc":
        path = tmp_path / name
        path.write_bytes(name.encode() * LENGTH)
        contents[name] = views.view(str(path), 0, LENGTH)
    assert [path[-1] for path in views._mapped] == ["b", "c"]
    assert views.view(str(tmp_path / "b"), 0, 5) == b"bbbbb"
    assert [path[-1] for path in views._mapped] == ["c", "b"]
    assert all(bytes(view) == name.encode() * LENGTH for name, view in contents.items()), "views outlive their place"


def test_files_pickle_as_their_path(store):
    files, data = store
    both(files)
    assert both(pickle.loads(pickle.dumps(files))) == [data[START : START + LENGTH], data[7:16]]
