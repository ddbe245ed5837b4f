"""Compression uses one thread: c-blosc's pool does not survive a fork, and a forked worker would wait for it."""

from pathlib import Path

import numcodecs.blosc
import numpy as np
import pytest
from medalign.teacher_cache.store.format import chunks
from medalign.teacher_cache.store.format.profiles import ArraySpec

ARRAY = ArraySpec(name="cosines", shape=(1 << 20,), dtype="<u2", axes=("pair",), compressed=True)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.fixture
def four_threads(monkeypatch):
    """As in a process that has not compressed anything yet, on a machine with four cores."""
    monkeypatch.setattr(numcodecs.blosc, "use_threads", None)
    before = numcodecs.blosc.set_nthreads(4)
    chunks._blosc.cache_clear()
    yield
    numcodecs.blosc.set_nthreads(before)
    chunks._blosc.cache_clear()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads in /proc")
def test_no_thread_is_started_for_a_large_array(four_threads):
    values = np.arange(1 << 20, dtype="<u2")
    before = threads()
    _, stored = chunks.encode_chunk(ARRAY, values)
    restored = chunks.decode_chunk(ARRAY, stored)
    assert threads() == before
    assert np.array_equal(restored, values)
