"""Opening a store of many rows, and finding images in it. A part of benchmarks/store.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medalign.teacher_cache.store.file_names import MANIFEST_FILE
from medalign.teacher_cache.store.format.header import default_shard_rows
from medalign.teacher_cache.store.records.index import ShardEntry, write_failures, write_index
from medalign.teacher_cache.store.records.ledger import ImageRecord
from medalign.teacher_cache.store.records.zarr_metadata import write_metadata
from store_features import TEACHERS, random_features
from store_readers import header_of, in_fresh_process, name_of

_LOOK_UPS = 5000


def look_ups(folder: Path, rows: int) -> dict[str, Any]:
    """Seconds and memory of opening a store of `rows` images in a fresh process, and of finding images in it."""
    path = folder / f"{rows}-rows.zarr"
    _write_index_alone(path, rows)
    prepare = f"""
import random, hashlib
from medalign.teacher_cache.store import open_store
numbers = random.Random(0).choices(range({rows}), k={_LOOK_UPS})
names = [hashlib.sha256(b"image %d" % number).hexdigest() for number in numbers]
"""
    opening, memory = in_fresh_process(prepare, f"store = open_store({str(path)!r}); store.row(names[0])")
    prepare += f"store = open_store({str(path)!r}); store.row(names[0])"
    finding, _ = in_fresh_process(prepare, "assert [store.row(name) for name in names] == numbers")
    return {"rows": rows, "open_seconds": opening, "memory_mb": memory, "look_up_us": finding / _LOOK_UPS * 1e6}


def _write_index_alone(path: Path, rows: int) -> None:
    """What a reader opens: metadata, index and failures of a finished store, without its shards."""
    shard_rows = default_shard_rows(rows, 2)
    header = header_of(random_features(TEACHERS[0], 1), "float16", rows, shard_rows)
    path.mkdir()
    write_metadata(path, header)
    sizes = tuple(shard_rows * (array.nbytes + 20) + 4 for array in header.arrays())
    shards = [ShardEntry(profile="float16", bytes=sizes)] * header.shards
    write_failures(path, [], [])
    write_index(path, header, "0" * 64, shards, _records(rows), [])
    (path / MANIFEST_FILE).touch()


def _records(rows: int) -> Iterator[ImageRecord]:
    for row in range(rows):
        name = name_of(row)
        yield ImageRecord.model_construct(
            row=row,
            image_hash=name,
            pixel_hash=name[::-1],
            width=640,
            height=512,
            max_abs_dS=1e-5,
            crc32c=row,
            sha256=name,
        )
