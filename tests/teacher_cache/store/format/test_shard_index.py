"""Chunks lie before the index of their shard. Zarr v3, `sharding_indexed`: uint64 offset and length, then crc32c."""

import numpy as np
import pytest
from crc32c import crc32c
from medalign.teacher_cache.store.format.shard_file import parse_index
from medalign.teacher_cache.store.store_errors import DamagedStore

START = 100


def parsed(*chunks: tuple[int, int]) -> list[list[int]]:
    data = np.array(chunks, "<u8").tobytes()
    data += crc32c(data).to_bytes(4, "little")
    return parse_index(data, len(chunks), START, "E_v/c/0/0/0", (1, 60)).tolist()


def test_chunks_may_reach_to_the_index():
    assert parsed((0, 40), (40, 60)) == [[0, 40], [40, 60]]


@pytest.mark.parametrize("chunk", [(41, 60), (99, 2), (101, 1), (2**64 - 10, 20), (20, 2**64 - 10), (2**63, 2**63)])
def test_a_chunk_that_is_not_before_the_index_is_refused(chunk):
    """The sum of an offset and a length may be 2^64 or more, which is small again in 64 bits."""
    with pytest.raises(DamagedStore, match="E_v/c/0/0/0 is damaged: it lists chunks outside the file"):
        parsed((0, 40), chunk)
