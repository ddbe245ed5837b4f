"""The parts of zarr's unstable API (codecs and sharding of format 3) that medalign uses; tested with zarr 3.1 to 3.3.

Only writers need it: stores are read without zarr.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore


@dataclass(frozen=True, kw_only=True, slots=True)
class NewArray:
    """An array whose chunks are one row each, and whose shards are `shard_rows` rows each."""

    key: str
    shape: tuple[int, ...]
    shard_rows: int
    dtype: str
    compressed: bool
    axes: Sequence[str]


def group_files(attributes: Mapping[str, Any], arrays: Sequence[NewArray], groups: Sequence[str]) -> dict[str, bytes]:
    """The metadata files of a Zarr v3 group with its arrays and subgroups; every chunk will have a crc32c checksum.

    They are built in memory, because zarr would overwrite existing files and follow links.
    """
    files: dict[str, Any] = {}
    group = zarr.create_group(store=MemoryStore(files), zarr_format=3, attributes=dict(attributes))
    for array in arrays:
        _create_array(group, array)
    for name in groups:
        group.require_group(name)
    return {key: value.to_bytes() for key, value in files.items()}


def _create_array(group: Any, array: NewArray) -> None:
    compressor = BloscCodec(typesize=2, cname="zstd", clevel=7, shuffle="bitshuffle", blocksize=0)
    row = array.shape[1:]
    group.create_array(
        array.key,
        shape=array.shape,
        chunks=(1, *row),
        shards=(array.shard_rows, *row),
        dtype=array.dtype,
        compressors=(compressor, Crc32cCodec()) if array.compressed else (Crc32cCodec(),),
        fill_value=float("nan") if "f" in array.dtype else 0,
        dimension_names=list(array.axes),
    )
