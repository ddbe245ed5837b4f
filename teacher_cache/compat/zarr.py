"""zarr's young API (codecs and sharding of format 3), as medalign uses it; tried with zarr 3.1 to 3.3.

Only writers need it: stores are read without zarr.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec


@dataclass(frozen=True, kw_only=True, slots=True)
class NewArray:
    """An array of which one chunk is one row, and one shard is `shard_rows` rows."""

    key: str
    shape: tuple[int, ...]
    shard_rows: int
    dtype: str
    compressed: bool
    axes: Sequence[str]


def create_group(path: Path, attributes: Mapping[str, Any], arrays: Sequence[NewArray]) -> Any:
    """Write the metadata of a Zarr v3 group and its arrays; every chunk has a crc32c checksum. Returns zarr's group."""
    group = zarr.create_group(store=str(path), zarr_format=3, attributes=dict(attributes))
    for array in arrays:
        _create_array(group, array)
    return group


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
