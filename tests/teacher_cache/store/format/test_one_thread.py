"""Compression uses one thread: c-blosc's pool does not survive a fork, and a forked worker would wait for it."""

import numcodecs.blosc
import numpy as np
import pytest
from medalign.teacher_cache.store.format import chunks
from medalign.teacher_cache.store.format.profiles import ArraySpec

ARRAY = ArraySpec(name="cosines", shape=(9,), dtype="<u2", axes=("pair",), compressed=True)
VALUES = np.arange(9, dtype="<u2")


@pytest.mark.parametrize("first", ["encode", "decode"])
def test_the_pool_is_turned_off_before_the_first_chunk(first, monkeypatch):
    """`use_threads` None, the default of numcodecs, uses the pool in the main thread."""
    _, stored = chunks.encode_chunk(ARRAY, VALUES)
    monkeypatch.setattr(numcodecs.blosc, "use_threads", None)
    chunks._blosc.cache_clear()
    if first == "encode":
        chunks.encode_chunk(ARRAY, VALUES)
    else:
        assert np.array_equal(chunks.decode_chunk(ARRAY, stored), VALUES)
    assert numcodecs.blosc.use_threads is False
