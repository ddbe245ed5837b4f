"""Files and folders that appear whole; what killed writers left is told from files in use and from those of users."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from medalign import atomic
from medalign.atomic import AtomicFile, is_temporary, new_folder, remove_leftovers, temporary_path, write_whole

WRITER = """
import sys
from pathlib import Path
from medalign.atomic import AtomicFile, new_folder
out = Path(sys.argv[2])
with AtomicFile(out) if sys.argv[1] == "file" else new_folder(out) as made:
    print("made", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def writing(kind: str, out: Path) -> Iterator[subprocess.Popen]:
    """Another process that has begun to write a file or a folder, until its input ends or it is killed."""
    command = [sys.executable, "-c", WRITER, kind, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "made\n"
            yield child
        finally:
            child.stdin.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_in_use_stays_and_what_was_left_goes(kind, tmp_path):
    out = tmp_path / "out"
    with writing(kind, out) as child:
        (left,) = remove_leftovers(out)
        assert is_temporary(left.name)
        assert left.exists()
        assert atomic.leftover_notes(out) == []
        child.kill()
        child.wait()
        assert remove_leftovers(out) == []
    assert names(tmp_path) == []


def test_a_complete_folder_is_named_and_an_empty_one_removed(tmp_path):
    """The first may be renamed in this moment."""
    complete, empty = temporary_path(tmp_path / "out"), temporary_path(tmp_path / "out")
    (complete / "E_v").mkdir(parents=True)
    empty.mkdir()
    (note,) = atomic.leftover_notes(tmp_path / "out")
    state = "is being written by another command, or was left by a killed one; in that case delete it"
    assert note == f"{complete} {state}"
    assert names(tmp_path) == [complete.name]


def test_a_file_of_this_process_is_in_use(tmp_path):
    with AtomicFile(tmp_path / "out") as file:
        file.write(b"new")
        assert len(remove_leftovers(tmp_path / "out")) == 1
    assert (tmp_path / "out").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_files_of_users_stay(tmp_path):
    """Also those beside the target whose names are nearly ours, and temporary files of other targets."""
    digits = "0123456789abcdef"
    theirs = ["out.partial", ".out.partial", ".out.medalign-0123.partial", f".out.medalign-{digits}.partial.txt"]
    for name in (*theirs, f".other.medalign-{digits}.partial", f"out.medalign-{digits}.partial"):
        (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    write_whole(tmp_path / "out", "new")
    assert names(tmp_path) == sorted([*before, "out"])


def test_a_link_by_a_temporary_name_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("mine")
    for target in (outside, outside / "thesis.txt", outside / "nothing"):
        temporary_path(tmp_path / "out").symlink_to(target)
    assert len(remove_leftovers(tmp_path / "out")) == 3
    assert names(outside) == ["thesis.txt"]


def test_a_target_that_is_a_link_is_replaced(tmp_path):
    (tmp_path / "real").write_text("mine")
    (tmp_path / "out").symlink_to("real")
    write_whole(tmp_path / "out", "new")
    assert (tmp_path / "real").read_text() == "mine"
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("length", [2, 200, 255])
def test_names_may_be_as_long_as_the_file_system_allows(length, tmp_path):
    for letter in ("a", "é"):
        name = letter * (length // len(letter.encode()))
        write_whole(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
    assert not any(map(is_temporary, names(tmp_path)))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(error, tmp_path, monkeypatch):
    write_whole(tmp_path / "out", "old")

    def fails(_: int) -> None:
        raise error

    monkeypatch.setattr(atomic.os, "fsync", fails)
    with pytest.raises(type(error)):
        write_whole(tmp_path / "out", "new")
    with pytest.raises(type(error)), new_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "old"
    assert atomic._live == set()


def test_an_empty_folder_may_be_there_and_a_full_one_not(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert names(tmp_path / "out") == ["file"]
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_an_exact_mode_does_not_depend_on_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        with AtomicFile(tmp_path / "file", 0o640) as file:
            file.write(b"")
        with new_folder(tmp_path / "folder", 0o750):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


CLEANER = (
    "import sys; from pathlib import Path; from medalign.atomic import remove_leftovers as r; r(Path(sys.argv[1]))"
)


def write_something(kind: str, out: Path, meanwhile: Callable[[], None] = lambda: None) -> None:
    with AtomicFile(out) if kind == "file" else new_folder(out, 0o700) as made:
        meanwhile()
        if kind == "file":
            made.write(b"")
        else:
            (made / "part").touch()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_that_another_process_removes_before_it_is_locked_is_made_again(kind, tmp_path, monkeypatch):
    """Tasks of a cluster that start at the same time look for leftovers of the same store."""
    out, lock, calls = tmp_path / "out", atomic.fcntl.lockf, []

    def lock_late(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            subprocess.run([sys.executable, "-c", CLEANER, str(out)], check=True)
            assert names(tmp_path) == []
        lock(descriptor, operation)

    monkeypatch.setattr(atomic.fcntl, "lockf", lock_late)
    write_something(kind, out)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_that_another_process_is_removing_is_left_to_it(kind, tmp_path, monkeypatch):
    out, lock, theirs = tmp_path / "out", atomic.fcntl.lockf, []

    def locked_by_another(descriptor: int, operation: int) -> None:
        if not theirs:
            theirs.extend(tmp_path.iterdir())
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        lock(descriptor, operation)

    monkeypatch.setattr(atomic.fcntl, "lockf", locked_by_another)
    write_something(kind, out, lambda: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in theirs])
    assert names(tmp_path) == ["out"]


def test_a_folder_that_is_removed_while_it_is_empty_is_made_again(tmp_path, monkeypatch):
    out, restrict, calls = tmp_path / "out", atomic.restrict, []

    def restrict_late(place: Path, mode: int) -> None:
        calls.append(place)
        if len(calls) == 1:
            assert remove_leftovers(out) == []
        restrict(place, mode)

    monkeypatch.setattr(atomic, "restrict", restrict_late)
    write_something("folder", out)
    assert names(tmp_path) == ["out"]
