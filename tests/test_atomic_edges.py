"""What atomic writes refuse, remove and keep: special targets, links in temporary folders, bits of modes, names."""

import errno
import os
import stat
from pathlib import Path

import pytest
from medalign import atomic
from medalign.atomic import (
    AtomicFile,
    beside,
    check_replaceable,
    is_temporary,
    leftover_notes,
    new_folder,
    remove_dead,
    remove_leftovers,
    remove_tree,
    restrict,
    temporary_path,
    write_new,
)
from medalign.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def with_links(folder: Path, outside: Path, error: BaseException | None = None) -> None:
    """Links to a folder, to a file and to nothing, at the top and deeper, among files and folders; then the error."""
    (folder / "deeper" / "still").mkdir(parents=True)
    (folder / "deeper" / "file").write_text("ours")
    for place in (folder, folder / "deeper"):
        (place / "to-folder").symlink_to(outside)
        (place / "to-file").symlink_to(outside / "thesis.txt")
        (place / "to-nothing").symlink_to(outside / "nothing")
    if error is not None:
        raise error


@pytest.mark.parametrize("how", ["a failed block", "a killed writer", "directly"])
def test_a_temporary_folder_goes_with_its_links_and_without_their_targets(how, tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "out"
    (outside / "papers").mkdir(parents=True)
    (outside / "thesis.txt").write_text("mine")
    if how == "a failed block":
        with pytest.raises(KeyboardInterrupt), new_folder(out) as folder:
            with_links(folder, outside, KeyboardInterrupt())
    else:
        folder = temporary_path(out)
        folder.mkdir()
        (folder / ".lock").touch()
        with_links(folder, outside)
        if how == "directly":
            remove_tree(folder)
        else:
            assert remove_leftovers(out) == []
    assert names(tmp_path) == ["outside"]
    assert names(outside) == ["papers", "thesis.txt"]
    assert (outside / "thesis.txt").read_text() == "mine"


def test_the_lock_of_a_temporary_folder_goes_last(tmp_path, monkeypatch):
    """A folder without a lock could be complete, so nothing would remove what a crash in the middle leaves."""
    folder = temporary_path(tmp_path / "out")
    for name in (".lock", "a", "b", "z"):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    removed, unlink = [], Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    remove_tree(folder)
    assert (sorted(removed[:-1]), removed[-1]) == (["a", "b", "z"], ".lock")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["restrict", "_create_locked"])
def test_a_folder_that_cannot_be_made_ready_is_removed(step, error, tmp_path, monkeypatch):
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(atomic, step, fails)
    with pytest.raises(type(error)), new_folder(tmp_path / "out", 0o700):
        pytest.fail("the block does not begin")
    assert names(tmp_path) == []


def test_only_regular_files_and_what_a_rename_refuses_may_be_replaced(tmp_path):
    """A folder is reported by the rename itself; so is a folder that does not exist by creating the temporary file."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, target in {"to-file": "file", "to-folder": "folder", "to-nothing": "nothing"}.items():
        (tmp_path / name).symlink_to(target)
        check_replaceable(tmp_path / name)
    for name in ("file", "folder", "new", "nowhere/new", "file/new"):
        check_replaceable(tmp_path / name)
    refused = {"pipe": "a pipe", "to-pipe": "a link to a pipe", "null": "a link to a device"}
    refused |= {"stdout": "a link to /proc/self/fd/1"}
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    before = names(tmp_path)
    for name, kind in refused.items():
        with pytest.raises(InputError, match=f"{tmp_path / name} is {kind}, and a new file would replace it"):
            AtomicFile(tmp_path / name)
    with pytest.raises(InputError, match="/dev/null is a device"):
        check_replaceable(Path("/dev/null"))
    with pytest.raises(IsADirectoryError), AtomicFile(tmp_path / "folder") as file:
        file.write(b"new")
    assert names(tmp_path) == before


def test_exact_permission_bits_keep_the_others(tmp_path):
    """Of a shared folder, new folders inherit the set-group-id bit, which their group depends on."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0o2700)
    restrict(tmp_path / "folder", 0o750)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o2750
    (tmp_path / "folder").chmod(0o1777)
    restrict(tmp_path / "folder", 0o000)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o1000


def test_a_pipe_by_a_temporary_name_is_neither_opened_nor_removed(tmp_path):
    pipe = temporary_path(tmp_path / "out")
    os.mkfifo(pipe)
    assert not remove_dead(pipe)
    assert remove_leftovers(tmp_path / "out") == [pipe]
    assert leftover_notes(tmp_path / "out") == []
    assert remove_dead(tmp_path / "nothing")


@pytest.mark.parametrize("letter", ["a", "é", "\udcff"])
def test_a_name_beside_another_is_as_long_as_file_systems_allow(letter, tmp_path):
    """Names of up to 255 bytes are unchanged; longer ones are cut, and different ones stay different."""
    size = len(os.fsencode(letter))
    for room in (0, 1, 2):
        name = letter * ((255 - 8 - room) // size)
        assert beside(tmp_path / name, ".", ".backup").name == f".{name}.backup"
    long = letter * (255 // size)
    cut = {beside(tmp_path / f"{long[:-1]}{end}", ".", ".backup").name for end in "xyz"}
    assert len(cut) == 3
    for name in cut:
        assert len(os.fsencode(name)) in range(255 - size, 256)
        assert name.startswith(f".{letter * 100}")
        assert name.endswith(".backup")
        (tmp_path / name).touch()
    assert {beside(tmp_path / f"{long[:-1]}{end}", ".", ".backup").name for end in "xyz"} == cut


def test_temporary_names_are_those_that_the_documentation_gives():
    for name in (".out.medalign-0123456789abcdef.partial", "..medalign-0123456789abcdef.partial"):
        assert is_temporary(name)
        for other in (name[1:], name + "x", name.replace("0", "g"), name.replace("0", ""), name.upper(), "x" + name):
            assert not is_temporary(other), other
    assert is_temporary(".two\nlines.medalign-0123456789abcdef.partial")


def test_a_new_file_without_links_is_whole_or_not_there(tmp_path, monkeypatch):
    """Its name is claimed with an empty file, which a failed write must not leave behind."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    write_new(tmp_path / "key", b"secret", 0o600)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_new(tmp_path / "other", b"secret", 0o600)
    assert names(tmp_path) == ["key"]


def test_a_file_that_another_process_took_is_not_remembered(tmp_path, monkeypatch):
    """It locks the new file before we do, to remove it as a leftover; another file may get the same inode later."""

    def taken(*_: object) -> None:
        raise OSError(errno.EAGAIN, "locked")

    monkeypatch.setattr(atomic.fcntl, "lockf", taken)
    before = set(atomic._live)
    assert atomic._create_locked(tmp_path / "new", 0o600) is None
    assert atomic._live == before
