"""What a process locked of a lock file that was removed meanwhile."""

import fcntl
import os

from medalign.teacher_cache.store.file_names import LOCK_FILE
from medalign.teacher_cache.store.filesystem import locks
from medalign.teacher_cache.store.filesystem.locks import RunLock


def can_be_locked(path) -> bool:
    """Whether another process can lock the whole file."""
    child = os.fork()
    if child == 0:
        try:
            fcntl.lockf(os.open(path, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_removed_file_does_not_stay_locked_when_the_new_one_is_locked(tmp_path, monkeypatch):
    """This process keeps the removed file open, because it holds another lock on it."""
    removed, opened, original = tmp_path / "removed", [], locks._open_file

    def open_then_remove(path, create):
        opened.append(original(path, create))
        if len(opened) == 1:
            path.rename(removed)
        return opened[-1]

    with RunLock(tmp_path, [0]):
        monkeypatch.setattr(locks, "_open_file", open_then_remove)
        with RunLock(tmp_path, [1]):
            assert removed.stat().st_ino != (tmp_path / LOCK_FILE).stat().st_ino
            assert not can_be_locked(removed), "shard 0"
            monkeypatch.undo()
            held = locks._files[locks._inode(removed)]
            fcntl.lockf(held.descriptor, fcntl.LOCK_UN, *reversed(held.spans[0]))
            assert can_be_locked(removed), "nothing else of it"


def test_a_lock_file_that_is_removed_while_it_is_opened_is_made_with_the_bits_of_the_store(tmp_path, monkeypatch):
    """Else the umask of whoever comes first would keep the rest of the group out."""
    tmp_path.chmod(0o770)
    (tmp_path / LOCK_FILE).touch()
    original = os.open

    def open_late(path, flags, *mode):
        try:
            return original(path, flags, *mode)
        except FileExistsError:
            path.unlink()
            raise

    monkeypatch.setattr(locks.os, "open", open_late)
    before = os.umask(0o077)
    try:
        with RunLock(tmp_path):
            assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o660
    finally:
        os.umask(before)
    assert not (tmp_path / LOCK_FILE).exists()
