"""A shard that is written again in another profile keeps only the files of that one."""

import shutil

from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.writing.writer import StoreWriter
from stores import write_store


def shard_files(store):
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if "c" in path.parts and path.is_file()}


def write_as(store, other, shard):
    """Write a shard again with the rows that it has in another store."""
    source, writer = open_store(other), StoreWriter(store)
    with RunLock(store):
        new = writer.begin(shard, source.profile_of(source.header.shard_range(shard)[0]))
        rows = source.index_columns(("image_hash", "pixel_hash", "row", "width", "height", "max_abs_dS", "sha256"))
        for row, position in zip(rows.to_pylist(), range(len(source)), strict=True):
            if row["row"] in source.header.shard_range(shard):
                (stored,) = source.stored_rows([position])
                size = (row.pop("width"), row.pop("height"))
                row.pop("row")
                new.append_stored(stored.chunks, size=size, **row)
        new.commit()
        (store / "manifest-sha256.txt").unlink()
        writer.finish()


def test_files_of_the_earlier_profile_are_removed(tmp_path):
    plain = write_store(tmp_path / "plain.zarr", range(6), shard_rows=3)
    wide = write_store(tmp_path / "wide.zarr", range(6), shard_rows=3, wide={1: "float32"})
    for before, after in ((plain, wide), (wide, plain)):
        store = shutil.copytree(before, tmp_path / f"{before.name} again")
        write_as(store, after, 1)
        assert shard_files(store) == shard_files(after) != shard_files(before)
        assert verify(store).ok
        assert open_store(store).root_sha256 == open_store(after).root_sha256
