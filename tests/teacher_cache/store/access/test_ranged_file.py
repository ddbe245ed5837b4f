"""A file behind a URL reads like the same bytes in memory, in few requests."""

import io
import random

import pytest
from medalign.teacher_cache.store.access.ranged_file import RangedFile
from medalign.teacher_cache.store.access.store_files import OpenFile

AHEAD = 1 << 16


class Files:
    """A store with one file in memory; keeps what was requested. Nothing else of its interface may be called."""

    location = "memory"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.requests: list[tuple[int, int]] = []

    def read_ranges(self, ranges):
        self.requests += [(start, length) for _, start, length in ranges]
        return [bytearray(self.data[start : start + length]) for _, start, length in ranges]

    def read(self, key):
        raise AssertionError(key)

    open = size = exists = read


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(0).randbytes(600_000)


def test_it_reads_like_memory(data):
    files, chosen = Files(data), random.Random(1)
    with RangedFile(files, "index.parquet", len(data)) as file:
        assert isinstance(file, OpenFile)
        memory = io.BytesIO(data)
        for _ in range(200):
            whence = chosen.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
            offset = {io.SEEK_SET: chosen.randrange(len(data)), io.SEEK_CUR: 0, io.SEEK_END: -chosen.randrange(9)}[
                whence
            ]
            assert file.seek(offset, whence) == memory.seek(offset, whence)
            length = chosen.choice([0, 1, 8, 5000, 100_000, -1])
            assert file.read(length) == memory.read(length)
    assert all(0 <= start < start + length <= len(data) for start, length in files.requests)


def test_a_column_is_one_request_and_small_reads_share_one(data):
    files = Files(data)
    file = RangedFile(files, "index.parquet", len(data))
    file.seek(1000)
    file.read(250_000)
    assert files.requests == [(1000, 250_000 + AHEAD)]
    for _ in range(100):
        file.read(600)
    assert len(files.requests) == 1
    file.seek(-8, io.SEEK_END)
    file.read(8)
    assert files.requests[1:] == [(len(data) - 8, 8)], "nothing beyond the end"


def test_a_file_that_became_shorter_reads_short(data):
    file = RangedFile(Files(data[:1000]), "index.parquet", len(data))
    assert file.read(5000) == data[:1000]
    assert file.read(5000) == b""
