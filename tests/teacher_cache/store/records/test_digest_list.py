"""The files of a store, in one order on every file system, and their digests."""

import hashlib

import pytest
from medalign.teacher_cache.store import DamagedStore
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.records.digest_list import stored_digest, stored_files


def test_files_are_in_the_order_of_their_names(tmp_path):
    names = [f"{folder}{name}" for folder in ("", "c/", "c/0/", "b/") for name in ("2", "10", "a", "Z")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert stored_files(tmp_path) == sorted(names)


def test_a_file_with_more_bytes_than_expected_has_no_digest(tmp_path):
    (tmp_path / "index.parquet").write_bytes(b"12345")
    files = LocalFiles(tmp_path)
    assert stored_digest(files, "index.parquet", most=5) == hashlib.sha256(b"12345").hexdigest()
    with pytest.raises(DamagedStore, match=r"index\.parquet has more than 4 bytes"):
        stored_digest(files, "index.parquet", most=4)
