"""A file that another process truncates while it is read."""

import os

from medalign.teacher_cache.store.access.store_files import LocalFiles


def test_bytes_that_were_not_read_are_not_returned(tmp_path, monkeypatch):
    """The memory for them has not been filled."""
    (tmp_path / "chunk").write_bytes(b"abcdefgh")
    read = os.preadv

    def after_a_cut(descriptor, buffers, offset):
        os.truncate(tmp_path / "chunk", 5)
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", after_a_cut)
    (found,) = LocalFiles(tmp_path).read_ranges([("chunk", 2, 6)])
    assert bytes(found) == b"cde"
