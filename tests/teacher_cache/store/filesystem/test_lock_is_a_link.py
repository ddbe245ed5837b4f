"""A link in the place of the lock file, which a worker finds that started after its run had checked the store."""

import socket
from pathlib import Path

import pytest
from medalign.teacher_cache.store.file_names import LOCK_FILE
from medalign.teacher_cache.store.filesystem.locks import ShardLock
from medalign.teacher_cache.store.store_errors import NotAFile


def test_a_worker_names_the_link_that_it_refuses(tmp_path):
    (tmp_path / "other").touch()
    (tmp_path / LOCK_FILE).symlink_to("other")
    with pytest.raises(NotAFile, match=r"\.lock is a symbolic link, but a store has only regular files there"):
        ShardLock(tmp_path, 0).__enter__()


def test_a_worker_names_the_socket_that_it_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(LOCK_FILE)
        with pytest.raises(NotAFile, match=r"\.lock is a socket"):
            ShardLock(Path(), 0).__enter__()
