"""Read one image's row from a teacher store with zarr and polars alone: python read_store.py STORE IMAGE

Returns the arrays as they are stored. Their grid is `grid` in profile float16 and `native_grid` in the others;
docs/store-format.md says how int8 and Gram rows become features or cosines, and how to interpolate.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import polars as pl
import zarr

ARRAYS = ("E_v", "scales", "cosines", "cosine_scale", "cosine_factors", "norms", "E_a")
WIDER = ("gram16", "native", "float32")


def read_row(store: str, image_hash: str) -> tuple[str, dict[str, np.ndarray]]:
    """The row's profile and its arrays by name."""
    if not Path(store, "manifest-sha256.txt").exists():
        raise ValueError(f"{store} is unfinished")
    group = zarr.open_group(store, mode="r")
    header = group.attrs["medalign"]
    if header["format_version"] > 2:
        raise ValueError(f"{store} has format {header['format_version']}; this reads up to 2")
    found = pl.read_parquet(Path(store, "index.parquet")).filter(pl.col("image_hash") == image_hash)
    if found.is_empty():
        raise KeyError(f"{store} has no row for {image_hash}")
    row = found["row"][0]
    for profile, folder in ((header["profile"], ""), *((profile, f"wide/{profile}/") for profile in WIDER)):
        names = [name for name in ARRAYS if f"{folder}{name}" in group]
        if names and np.isfinite(group[f"{folder}E_a"][row]).all():  # else the row's shard is in a wider profile
            return profile, {name: np.asarray(group[f"{folder}{name}"][row]) for name in names}
    raise ValueError(f"row {row} of {store} is damaged: it holds nothing")


if __name__ == "__main__":
    profile, arrays = read_row(sys.argv[1], hashlib.sha256(Path(sys.argv[2]).read_bytes()).hexdigest())
    print(profile, {name: (values.shape, str(values.dtype)) for name, values in arrays.items()})
