"""Write locks: a lock of a live process is respected, one of a dead process is taken over."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.store.file_names import LOCK_FILE
from medalign.teacher_cache.store.filesystem import locks
from medalign.teacher_cache.store.filesystem.locks import RunLock, ShardLock

HOLDER = f"""
import sys, types
package = types.ModuleType("medalign.teacher_cache.store")  # not its __init__, which imports torch
package.__path__ = {[str(Path(locks.__file__).parents[1])]}
sys.modules[package.__name__] = package
from contextlib import ExitStack
from pathlib import Path
from medalign.teacher_cache.store.filesystem.locks import RunLock, ShardLock

with ExitStack() as held:
    store = Path(sys.argv[1])
    for lock in sys.argv[2:]:
        held.enter_context(eval(lock))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(store, *names: str) -> Iterator[subprocess.Popen]:
    """A process that holds locks until its standard input ends, or until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(store), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.stdin.close()


def test_a_live_run_keeps_others_out_and_a_finished_one_does_not(tmp_path):
    with (
        holding(tmp_path, "RunLock(store)"),
        pytest.raises(StoreError, match=r"another run is writing to .*; wait for it or stop it"),
        RunLock(tmp_path),
    ):
        pass
    with RunLock(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()
    assert not list(tmp_path.iterdir()), "the file exists only during writing"


def test_a_killed_run_is_taken_over(tmp_path):
    with holding(tmp_path, "RunLock(store)", "ShardLock(store, 3)") as child:
        child.kill()
        child.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with RunLock(tmp_path), ShardLock(tmp_path, 3):
            pass


def test_tasks_run_side_by_side_and_exclude_whole_runs(tmp_path):
    with holding(tmp_path, "RunLock(store, [0, 2, 4])"):
        with RunLock(tmp_path, [1, 3, 5]):
            for shards in ([4], [2, 7], None):
                with pytest.raises(StoreError, match="another run"), RunLock(tmp_path, shards):
                    pass
        with RunLock(tmp_path, [7]):
            pass
    assert (tmp_path / LOCK_FILE).exists(), "another task may be about to lock it"
    with RunLock(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_failed_claim_leaves_nothing_locked(tmp_path):
    with holding(tmp_path, "RunLock(store, [5])"):
        with pytest.raises(StoreError), RunLock(tmp_path, [4, 5]):
            pass
        with holding(tmp_path, "RunLock(store, [4])"):
            pass


def test_an_orphaned_writer_is_waited_for_and_then_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_ORPHANS_END_WITHIN", 0.1)
    (tmp_path / LOCK_FILE).touch()
    with holding(tmp_path, "ShardLock(store, 3)"):
        with pytest.raises(StoreError, match="a worker of an earlier run is still writing"), RunLock(tmp_path):
            pass
        with pytest.raises(StoreError, match="another process is writing shard 3"), ShardLock(tmp_path, 3):
            pass
        with RunLock(tmp_path, [1, 2]):  # the rejected whole run released everything
            pass
    with RunLock(tmp_path):
        pass


def test_a_worker_whose_run_has_ended_stops(tmp_path):
    with pytest.raises(StoreError, match="has ended; this worker stops"), ShardLock(tmp_path, 0):
        pass
    assert not list(tmp_path.iterdir())


def test_a_process_does_not_claim_twice_and_keeps_its_other_locks(tmp_path):
    with RunLock(tmp_path, [0, 1]), ShardLock(tmp_path, 0):
        with pytest.raises(StoreError, match="another run"), RunLock(tmp_path, [1]):
            pass
        with pytest.raises(StoreError, match="shard 0"), ShardLock(tmp_path, 0):
            pass
        with ShardLock(tmp_path, 1):
            pass
        # each attempt above opened and closed claims on the same file; the lock held here must survive
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.run(
                [sys.executable, "-c", HOLDER, str(tmp_path), "RunLock(store, [1])"],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
    assert locks._files == {}


def test_a_lock_on_a_removed_file_is_not_a_lock(tmp_path, monkeypatch):
    """The holder removes the file after this process opened it and before it locked it: the new file is locked."""
    opened: list[int] = []
    original = locks._open_file

    def open_then_remove(path, create):
        key, file = original(path, create)
        opened.append(key[1])
        if len(opened) == 1:
            path.rename(path.with_name("removed"))
        return key, file

    monkeypatch.setattr(locks, "_open_file", open_then_remove)
    with RunLock(tmp_path):
        assert len(opened) >= 2
        assert (tmp_path / LOCK_FILE).stat().st_ino == opened[-1]
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path), "RunLock(store)"],
                           stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # fmt: skip


def test_unavailable_locks_report_the_reason(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"\.lock cannot be locked: Not a directory"), RunLock(tmp_path / "file"):
        pass
    no_locks = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr(locks.fcntl, "lockf", lambda *_: (_ for _ in ()).throw(no_locks))
    with pytest.raises(StoreError, match="cannot be locked: No locks available"), RunLock(tmp_path):
        pass


def test_a_forked_child_holds_no_lock(tmp_path):
    with RunLock(tmp_path):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, str(len(locks._files)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 10) == b"0"
        os.close(reader)
        os.close(writer)
