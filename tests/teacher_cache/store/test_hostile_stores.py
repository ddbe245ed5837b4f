"""Malicious stores with correct digests: `verify` and reads fail fast with clean errors."""

import contextlib
import os
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from medalign.errors import InputError
from medalign.pipeline.stores.share import read_hashes
from medalign.pipeline.stores.verify import describe_store
from medalign.progress import Silent
from medalign.teacher_cache.extraction.store_plan import recorded_plan
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import DamagedStore, MissingTeacherRow, TeacherStore, open_store
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.file_names import INDEX_FILE, MANIFEST_FILE
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.header import row_digest
from medalign.teacher_cache.store.format.keyed_hashes import HashKey, read_key
from medalign.teacher_cache.store.format.profiles import encode
from medalign.teacher_cache.store.records import index as index_module
from medalign.teacher_cache.store.records.index import read_summary
from medalign.teacher_cache.store.records.zarr_metadata import write_metadata
from medalign.teacher_cache.store.writing.adoption import adopt
from medalign.teacher_cache.store.writing.writer import StoreWriter
from stores import name_of, pixels_of, store_header, teacher_output, write_store

NATIVE = PatchGrid(6, 6)
PAIRS = 36 * 35 // 2


def store_of_chunks(path: Path, chunks: dict[str, bytes], **fields: Any) -> Path:
    """A store of one image with the given chunks in its row; digests and records match them."""
    header = store_header([0], **fields)
    rows = encode(header.profile, *teacher_output([0], header), header.native_grid, header.grid)
    writer = StoreWriter.create(path, header, [name_of(0)])
    honest = {name: values[0] for name, values in rows.arrays.items()}
    with RunLock(path):
        shard = writer.begin(0)
        shard.append(honest, image_hash=name_of(0), pixel_hash=pixels_of(0), size=(30, 20), max_abs_dS=0.0)
        if chunks:
            shard.abort()
            shard = writer.begin(0)
            stored = [chunks.get(array.name, honest[array.name].tobytes()) for array in header.arrays()]
            about = {"image_hash": name_of(0), "pixel_hash": pixels_of(0), "size": (30, 20), "max_abs_dS": 0.0}
            shard.append_stored(stored, **about, sha256=row_digest(stored))
        shard.commit()
        writer.finish()
    return path


def frame(flags: int, nbytes: int, blocksize: int, cbytes: int, body: bytes = b"", typesize: int = 2) -> bytes:
    """A Blosc frame of format 2 with the given header values."""
    return struct.pack("<BBBBIII", 2, 1, flags, typesize, nbytes, blocksize, cbytes) + body


RAW, ZSTD = 0x96, 0x94
SIZE = PAIRS * 2
LYING_FRAMES = {
    "no body, stored as it is": frame(RAW, SIZE, SIZE, SIZE + 16),
    "no body, memcpy alone": frame(0x02, SIZE, SIZE, SIZE + 16),
    "more bytes than it has": frame(RAW, SIZE, SIZE, SIZE + 17, bytes(SIZE)),
    "fewer values than a row": frame(RAW, 2, 2, 18, b"ab"),
    "more values than a row": frame(RAW, SIZE + 2, SIZE + 2, SIZE + 18, bytes(SIZE + 2)),
    "4 GB of values": frame(ZSTD, 2**32 - 1, 2**31, 40, bytes(24)),
    "blocks of no bytes": frame(ZSTD, SIZE, 0, 40, bytes(24)),
    "blocks larger than the row": frame(ZSTD, SIZE, 2**31 - 1, 40, struct.pack("<II", 20, 16) + bytes(16)),
    "a block outside": frame(ZSTD, SIZE, SIZE, 40, struct.pack("<I", 2**31) + bytes(20)),
    "a block in the header": frame(ZSTD, SIZE, SIZE, 40, struct.pack("<I", 4) + bytes(20)),
    "a block longer than the frame": frame(ZSTD, SIZE, SIZE, 40, struct.pack("<II", 20, 2**30) + bytes(16)),
    "a block of no bytes": frame(ZSTD, SIZE, SIZE, 40, struct.pack("<II", 20, 0) + bytes(16)),
    "too few offsets": frame(ZSTD, SIZE, 1, 40, bytes(24)),
    "another codec": frame(0x14, SIZE, SIZE, 40, struct.pack("<II", 20, 16) + bytes(16)),
    "another size of values": frame(RAW, SIZE, SIZE, SIZE + 16, bytes(SIZE), typesize=1),
    "zstd that is none": frame(ZSTD, SIZE, SIZE, 40, struct.pack("<II", 20, 16) + bytes(16)),
    "fewer bytes than a header": b"\x02\x01\x96\x02",
}


@pytest.mark.parametrize("lie", LYING_FRAMES)
def test_a_wrong_blosc_header_is_damage(tmp_path, lie):
    store = store_of_chunks(
        tmp_path / "s.zarr", {"cosines": LYING_FRAMES[lie]}, profile="gram16", native_grid=NATIVE, grid=PatchGrid(8, 8)
    )
    assert not verify(store).ok
    with pytest.raises(DamagedStore, match="medalign store repair"):
        open_store(store)[name_of(0)]


NOT_FINITE = [
    ("float16", "E_v"), ("native", "E_v"), ("float32", "E_v"), ("int8", "scales"), ("float16", "E_a"),
    ("gram16", "cosine_scale"), ("gram12", "cosine_factors"), ("gram16", "norms"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "name"), NOT_FINITE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_value_is_damage_in_every_array(tmp_path, profile, name, value):
    header = store_header([0], profile=profile)
    values = encode(profile, *teacher_output([0], header), header.native_grid, header.grid).arrays[name][0].copy()
    values.flat[values.size // 2] = value
    compressed = {"cosines": _honest_cosines(header)} if profile.startswith("gram") else {}
    store = store_of_chunks(tmp_path / "s.zarr", {name: values.tobytes(), **compressed}, profile=profile)
    assert [problem.kind for problem in verify(store).problems] == ["shard"]
    with pytest.raises(DamagedStore, match=rf"{name} of row 0 .* not finite"):
        open_store(store)[name_of(0)]


def _honest_cosines(header: Any) -> bytes:
    from medalign.teacher_cache.store.format.chunks import encode_chunk

    rows = encode(header.profile, *teacher_output([0], header), header.native_grid, header.grid)
    return bytes(encode_chunk(header.arrays()[0], rows.arrays["cosines"][0])[1])


def test_a_shard_truncated_while_it_is_read_is_damage_and_not_a_signal(tmp_path):
    """rsync --inplace and cp truncate a file first. Its bytes are checked between truncation and last access."""
    wide = {"grid": PatchGrid(32, 32), "width": 256}
    store = open_store(write_store(tmp_path / "s.zarr", range(2), **wide))
    whole, done = store[name_of(1)].E_v, threading.Event()
    shard = tmp_path / "s.zarr" / "E_v/c/0/0/0"
    data = shard.read_bytes()

    def cut() -> None:
        while not done.is_set():
            os.truncate(shard, 0)
            shard.write_bytes(data)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        for _ in range(60):
            with contextlib.suppress(DamagedStore):
                assert np.array_equal(store[name_of(1)].E_v, whole)
    finally:
        done.set()
        thread.join()


def with_header(store: Path, **fields: Any) -> Path:
    """Change the header, its copy and the arrays' metadata, and nothing else."""
    summary = read_summary(LocalFiles(store))
    header = open_store(store).header.model_copy(update=fields)
    header = type(header).model_validate(header.model_dump())
    table = pq.read_table(store / INDEX_FILE)
    changed = summary.model_copy(update={"header": header.model_dump(mode="json")})
    write_metadata(store, header)
    index_module._write(store / INDEX_FILE, table, changed)
    return store


@pytest.mark.parametrize("segments", [(10**18,), (10**6,), (14, 10**18), (10**12,) * 3])
def test_a_header_with_a_huge_number_of_shards_fails_fast(tmp_path, segments):
    import json

    store = write_store(tmp_path / "s.zarr", range(14), shard_rows=1)
    with_header(store, segments=(14, 1))
    for key in ("zarr.json", INDEX_FILE):
        old, new = "[14, 1]", str(list(segments))
        data = (store / key).read_bytes()
        if key == INDEX_FILE:
            table = pq.read_table(store / key)
            about = json.loads(table.schema.metadata[b"medalign"])
            about["header"]["segments"] = list(segments)
            pq.write_table(
                table.replace_schema_metadata({"medalign": json.dumps(about)}), store / key, use_dictionary=False
            )
        else:
            found = json.loads(data)
            assert str(found["attributes"]["medalign"]["segments"]) == old, new
            found["attributes"]["medalign"]["segments"] = list(segments)
            (store / key).write_text(json.dumps(found))
    for command in (open_store, verify, describe_store):
        with pytest.raises(DamagedStore):
            command(str(store))


def test_a_huge_plan_without_data_fails_fast(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(4))
    header = open_store(store).header.model_copy(update={"segments": (10**9,)})
    with pytest.raises(DamagedStore, match=r"the plan of .* cannot be read"):
        recorded_plan(store, type(header).model_validate(header.model_dump()))


def bomb(path: Path, rows: int) -> None:
    """An index with far more rows than planned, but a small file."""
    about = pq.read_schema(path).metadata
    schema = index_module._INDEX_SCHEMA
    one = {"image_hash": "0" * 64, "pixel_hash": "0" * 64, "sha256": "0" * 64}
    columns = [
        pa.array([one.get(field.name, 0)], field.type).take(pa.array(np.zeros(rows, np.int64))) for field in schema
    ]
    pq.write_table(pa.table(columns, schema=schema).replace_schema_metadata(about), path, compression="zstd")


def test_an_index_of_more_rows_than_the_header_plans_is_not_decoded(tmp_path, monkeypatch):
    store = write_store(tmp_path / "s.zarr", range(4))
    bomb(store / INDEX_FILE, 200_000)
    assert (store / INDEX_FILE).stat().st_size < 100_000
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", _not_called)
    with pytest.raises(DamagedStore, match="claims 200000 rows, but the header allows 4"):
        open_store(store)
    monkeypatch.undo()
    assert "index.parquet: cannot be read" in "\n".join(map(str, verify(store, quick=True).problems))


def _not_called(*_: object, **__: object) -> None:
    raise AssertionError("a column was decoded")


@pytest.mark.parametrize("key", ["zarr.json", "E_v/zarr.json", "ledger/000000.json", MANIFEST_FILE])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"[" * 100_000, b"\xff\xfe", b'"\\ud800"', b"1e999"])
def test_empty_bom_marked_or_deeply_nested_small_files_are_damage(tmp_path, key, data):
    store = write_store(tmp_path / "s.zarr", range(4))
    (store / key).write_bytes(data + (store / key).read_bytes() if data.startswith(b"\xef\xbb") else data)
    report = verify(store, quick=True)
    assert key in {problem.key for problem in report.problems}
    if key.endswith("zarr.json"):
        with pytest.raises(DamagedStore):
            open_store(store)


def test_a_store_is_a_mapping_of_its_images(tmp_path):
    images = range(5)
    store = open_store(write_store(tmp_path / "s.zarr", images, failing=(2,)))
    names = [name_of(image) for image in images if image != 2]
    assert list(store) == list(store.keys()) == names
    assert [target.E_v.shape for target in store.values()] == [(16, 8)] * 4
    assert dict(store.items()).keys() == set(names)
    assert store.get(name_of(2)) is None
    assert len({store, open_store(tmp_path / "s.zarr")}) == 2


def test_a_keyed_store_iterates_over_its_keyed_hashes(tmp_path):
    key = HashKey(b"the key of the laboratory, 32 bytes or more")
    path = write_store(tmp_path / "s.zarr", range(3), key=key)
    names = [key.keyed(name_of(image)) for image in range(3)]
    store = TeacherStore(LocalFiles(path), key)
    assert list(store) == names
    assert store[names[1]].E_v.equal(store[name_of(1)].E_v)


def test_a_reader_opened_before_extend_keeps_its_rows_and_reports_the_change(tmp_path):
    path = write_store(tmp_path / "s.zarr", range(5))
    side = write_store(tmp_path / "side.zarr", range(5, 8))
    reader = open_store(path)
    before = [reader[name_of(image)].E_v for image in range(3)]
    with RunLock(path):
        adopt(path, list(map(name_of, range(5))), side, list(map(name_of, range(5, 8))))
    assert all(reader[name_of(image)].E_v.equal(values) for image, values in enumerate(before))
    assert len(reader) == 5
    with pytest.raises(MissingTeacherRow, match="changed after it was opened: open it again"):
        reader[name_of(6)]
    assert open_store(path)[name_of(6)].E_v.shape == (16, 8)


def test_hash_files_may_have_a_byte_order_mark_and_need_a_hash(tmp_path):
    file = tmp_path / "hashes.txt"
    file.write_bytes(b"\xef\xbb\xbf" + name_of(0).encode() + b"\r\n\r\n")
    assert read_hashes(file) == [name_of(0)]
    for data in (b"", b"\n \n", b"\xef\xbb\xbf"):
        file.write_bytes(data)
        with pytest.raises(InputError, match="has no image hash"):
            read_hashes(file)


def test_a_key_with_a_byte_order_mark_is_rejected(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"\xef\xbb\xbf" + b"k" * 64)
    file.chmod(0o600)
    with pytest.raises(InputError, match="byte order mark"):
        read_key(file)


@pytest.mark.parametrize(("mark", "flags", "name"), [(b"PK\x01\x02", 8, 46), (b"PK\x03\x04", 6, 30)])
def test_a_packed_store_with_a_name_that_is_not_utf8_is_rejected(tmp_path, mark, flags, name):
    """Flag bit 11 marks a member's name as UTF-8 (APPNOTE 4.4.4), in its local and in its central record."""
    pack(write_store(tmp_path / "s.zarr", range(2)), tmp_path / "s.zip", allow=None, progress=Silent())
    data = bytearray((tmp_path / "s.zip").read_bytes())
    at = data.index(mark)
    data[at + flags + 1] |= 0x08
    data[at + name] = 0xFF
    (tmp_path / "s.zip").write_bytes(data)
    with pytest.raises(DamagedStore, match=r"the packed store .* is damaged"):
        unpack(tmp_path / "s.zip", tmp_path / "out.zarr", progress=Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "s.zip"]
