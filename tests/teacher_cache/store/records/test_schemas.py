"""Limits that are checked before a file is parsed, counted or decoded."""

import io
import json
import struct

import numcodecs.blosc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import InputError
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store import DamagedStore
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.file_names import INDEX_FILE
from medalign.teacher_cache.store.format.blosc_frame import check_frame
from medalign.teacher_cache.store.format.chunks import in_range
from medalign.teacher_cache.store.records import index
from medalign.teacher_cache.store.records.digest_list import parse_manifest
from medalign.teacher_cache.store.records.index import IndexSummary
from medalign.teacher_cache.store.records.ledger import LONGEST_REASON, parse_record, write_unreadable
from medalign.teacher_cache.store.records.schemas import check_header, describe, parse_json, parse_model
from medalign.teacher_cache.store.records.thrift import ThriftError, read_struct
from medalign.teacher_cache.store.records.zarr_metadata import check_arrays, parse_header, read_header
from pydantic import TypeAdapter, ValidationError
from stores import store_header, write_store


@settings(max_examples=60, deadline=None)
@given(
    values=st.integers(0, 40_000), spread=st.sampled_from([1, 50, 2**16]), seed=st.integers(0, 99), bit=st.integers(0)
)
def test_valid_frames_pass_and_mutated_ones_stay_in_bounds(values, spread, seed, bit):
    """The codec is that of numcodecs. A mutated frame that passes must decode within the output buffer or raise."""
    numcodecs.blosc.use_threads = False
    codec = numcodecs.blosc.Blosc(cname="zstd", clevel=7, shuffle=numcodecs.blosc.BITSHUFFLE, blocksize=0)
    levels = np.random.default_rng(seed).integers(0, spread, values).astype("<u2")
    encoded = bytearray(codec.encode(levels))
    check_frame(encoded, levels.nbytes)
    bit %= 8 * len(encoded)
    encoded[bit // 8] ^= 1 << bit % 8
    out = np.empty_like(levels)
    try:
        check_frame(encoded, levels.nbytes)
        codec.decode(encoded, out)
    except (ValueError, RuntimeError):
        return
    version, _, _, _, nbytes, _, cbytes = struct.unpack_from("<BBBBIII", encoded)
    assert (version, nbytes, cbytes) == (2, levels.nbytes, len(encoded))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<u2", "|i1"])
def test_in_range_matches_numpy(dtype):
    draw = np.random.default_rng(5)
    for _ in range(200):
        values = np.frombuffer(draw.bytes(12 * 4), dtype).copy()
        if "f" in dtype:
            with np.errstate(invalid="ignore"):  # signaling NaN
                wide = values.astype(np.float64)
            assert in_range(values) == bool(np.isfinite(wide).all() and (np.abs(wide) < 2.0**50).all())
        else:
            assert in_range(values)
    assert in_range(np.empty(0, dtype))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segments": (10**18,), "shard_rows": 1}, "1000000000000000000 shards, at most 1048576"),
        ({"segments": (2**80,)}, r"2\^80 or more images"),
        ({"segments": (2**20 + 1,), "shard_rows": 1}, "1048577 shards"),
        ({"shard_rows": 2**17 + 1}, "131073 shard_rows"),
        ({"grid": PatchGrid(10_000, 1)}, "100000000 values of S"),
        ({"native_grid": PatchGrid(1, 10_000)}, "100000000 values of S"),
        ({"width": 2**40}, "values of E_v"),
        ({"std": (0.0, 1.0, 1.0)}, "mean or std"),
        ({"mean": (float("inf"), 0.0, 0.0)}, "mean or std"),
        ({"mean": (0.0, float("nan"), 0.0)}, "mean or std"),
        ({"image_size": 10**6}, "1000000 image_size"),
    ],
)
def test_a_header_beyond_the_limits_is_damage(fields, message):
    header = store_header([0], **fields)
    with pytest.raises(DamagedStore, match=message):
        check_header(header, "here")


def test_headers_of_the_largest_teachers_pass():
    for fields in (
        {"native_grid": PatchGrid(73, 73), "grid": PatchGrid(73, 73), "width": 4096},
        {"segments": (15_000_000, 377_110), "shard_rows": 50_000},
    ):
        check_header(store_header([0], **fields), "here")


@pytest.mark.parametrize("grid", [5, None, [], "1" * 5000 + "x1", "1x", "x", "0x0", "-1x1", {"a": 1}])
def test_an_invalid_grid_is_damage(grid):
    found = store_header([0]).model_dump(mode="json") | {"grid": grid}
    with pytest.raises(DamagedStore, match="grid"):
        parse_header(found, "here")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"[" * 1000,
        b"{",
        b"NaN",
        b'{"a": Infinity}',
        b"\xff",
        b'"\\ud800"',
        b"1" * 5000,
        b" " * 99,
    ],
)
def test_json_is_strict_and_bounded(data):
    with pytest.raises(DamagedStore, match="here is damaged"):
        parse_json(data, 50 if data.isspace() else 10_000, "here")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%64d  a\n" % 0,
        b"g" * 64 + b"  a\n",
        b"A" * 64 + b"  a\n",
        b"a" * 64 + b"  a",
        b"a" * 64 + b"  a\r\n",
        b"a" * 64 + b"  a\x1b[31m\n",
        b"a" * 64 + b"  \xc3\xa9\n",
        (b"a" * 64 + b"  a\n") * 2,
        b"a" * 64 + b"  b\n" + b"a" * 64 + b"  a\n",
        b"\xef\xbb\xbf" + b"a" * 64 + b"  a\n",
    ],
)
def test_a_manifest_is_a_sorted_list_of_digests_and_paths(data):
    assert parse_manifest(b"a" * 64 + b"  a\n", "here") == {"a": "a" * 64}
    with pytest.raises(DamagedStore, match="here is damaged"):
        parse_manifest(data, "here")


@pytest.mark.parametrize(
    "data",
    [
        b'{"version":1,"shard":0,"profile":"float16","files":[],"images":[' + b"{}," * 300_000 + b"{}]}",
        b'{"version":1,"shard":0,"profile":"float16","images":[],"files":[' + b"0," * 300_000 + b"0]}",
        b"{" + b",".join(b'"a%d":0' % number for number in range(100_000)) + b"}",
    ],
    ids=["images", "files", "fields"],
)
def test_very_many_invalid_values_are_reported_as_a_count(data):
    """Each reported error takes hundreds of bytes, so a list of a million would take gigabytes."""
    with pytest.raises(DamagedStore) as raised:
        parse_record(data, 0, "here")
    found = raised.value.__cause__
    assert isinstance(found, ValidationError)
    assert found.error_count() < 100 or "values are invalid" in str(raised.value)  # which lists none of them
    assert len(str(raised.value)) < 1000


def test_reasons_are_truncated_and_bounded(tmp_path, monkeypatch):
    (tmp_path / "ledger").mkdir()
    write_unreadable(tmp_path, ["x" * 10_000])
    assert json.loads((tmp_path / "ledger/unreadable.json").read_bytes()) == ["x" * LONGEST_REASON]
    monkeypatch.setattr("medalign.teacher_cache.store.records.ledger.MOST_UNREADABLE", 1)
    with pytest.raises(InputError, match="2 image files cannot be read, which is more than a store can record"):
        write_unreadable(tmp_path, ["x", "y"])


def test_thrift_footers_match_pyarrow():
    table = pa.table({"a": ["x"] * 50, "b": list(range(50))})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=7)
    data, metadata = file.getvalue(), pq.read_metadata(io.BytesIO(file.getvalue()))
    length = int.from_bytes(data[-8:-4], "little")
    footer, end = read_struct(memoryview(data), len(data) - 8 - length, 10_000)
    assert end == len(data) - 8
    assert (footer[3], len(footer[4]), bytes(footer[6]).decode()) == (50, metadata.num_row_groups, metadata.created_by)
    for number, group in enumerate(footer[4]):
        expected = metadata.row_group(number)
        assert group[3] == expected.num_rows
        for at, column in enumerate(group[1]):
            about = expected.column(at)
            assert (column[3][5], column[3][6], column[3][7], column[3][9]) == (
                about.num_values,
                about.total_uncompressed_size,
                about.total_compressed_size,
                about.data_page_offset,
            )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x19\xfc\xc0\x84\x3d" + bytes(1_000_000), "too many fields"),  # a list of a million structs
        (b"\x1c" * 100, "too many fields"),
        (b"\x18\xff\xff\xff\xff\x0f", "ends early"),
        (b"\x15", "ends early"),
        (b"\x15\x02\x05\x02\x02\x00", "field 1 twice"),
        (b"\x16" + b"\xff" * 11, "more than 64 bits"),
        (b"\x1b\x00\x00", "type 11"),
    ],
)
def test_thrift_is_bounded(data, message):
    with pytest.raises(ThriftError, match=message):
        read_struct(memoryview(data), 0, 10_000)


def rewritten(path, change, **options):
    """The index with other contents or another encoding, and its metadata."""
    table = pq.read_table(path)
    changed = change(table).replace_schema_metadata(table.schema.metadata)
    pq.write_table(changed, path, **{"compression": "zstd", "use_dictionary": False, **options})


def replaced(name, values):
    def change(table):
        at = table.schema.get_field_index(name)
        return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))

    return change


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda table: table, {"use_dictionary": True}, "with an encoding that stores do not use"),
        (lambda table: table, {"compression": "gzip"}, "with a codec or type that stores do not use"),
        (
            lambda table: table,
            {"column_encoding": {"row": "DELTA_BINARY_PACKED"}},
            "with an encoding that stores do not use",
        ),
        (lambda table: table.take([0, 0, 1, 2, 3]), {}, "claims 5 rows, but the header allows 4"),
        (lambda table: table.drop_columns(["row"]), {}, "its columns are"),
        (replaced("image_hash", ["x" * 2**20] * 4), {}, "claims more than 1048856 bytes for its rows"),
        (replaced("row", [0, 1, 2, None]), {}, "without a row or checksum"),
        (replaced("row", [0, 1, 3, 2]), {}, "are not ascending rows"),
        (replaced("row", [-1, 1, 2, 3]), {}, "are not ascending rows"),
        (replaced("row", [0, 1, 2, 4]), {}, "are not ascending rows"),
        (replaced("row", [0, 1, 2, 2**62]), {}, "are not ascending rows"),
        (replaced("crc32c", [0, 1, 2, None]), {}, "without a row or checksum"),
        (replaced("image_hash", ["\x1b[31m", "b", "c", "d"]), {}, "values that are not SHA-256"),
    ],
)
def test_an_index_is_bounded_before_it_is_decoded(tmp_path, change, options, message):
    from medalign.teacher_cache.store import open_store

    store = write_store(tmp_path / "s.zarr", range(4))
    rewritten(store / INDEX_FILE, change, **options)
    assert (store / INDEX_FILE).stat().st_size < 50_000
    with pytest.raises(DamagedStore, match=message):
        open_store(store)


def test_a_page_that_claims_another_size_is_not_decoded(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(4))
    data = bytearray((store / INDEX_FILE).read_bytes())
    start = pq.read_metadata(store / INDEX_FILE).row_group(0).column(0).data_page_offset
    assert data[start : start + 3] == b"\x15\x00\x15", "page type, then the decoded size"
    end = start + 3 + (2 if data[start + 3] & 128 else 1)
    for claimed in (b"\xfe\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x0f"):
        (store / INDEX_FILE).write_bytes(data[: start + 3] + claimed[: end - start - 3] + data[end:])
        with pytest.raises(DamagedStore):
            index.read_columns(LocalFiles(store), INDEX_FILE, ["image_hash"], store_header(range(4)))


@pytest.mark.parametrize("codec", [14, 22, -1])
def test_an_unknown_codec_does_not_end_the_process(tmp_path, codec):
    """pyarrow 26 calls std::terminate when such a column's codec is accessed."""
    store = write_store(tmp_path / "s.zarr", range(4))
    data = bytearray((store / INDEX_FILE).read_bytes())
    path = b"\x19\x18\x0aimage_hash"  # path_in_schema, a list of one text; then the codec
    at = data.index(path, len(data) - 8 - int.from_bytes(data[-8:-4], "little")) + len(path)
    assert data[at : at + 2] == b"\x15\x0c", "field 4, zstd (6) in zigzag"
    data[at + 1] = 2 * codec if codec >= 0 else 1
    (store / INDEX_FILE).write_bytes(data)
    with pytest.raises(DamagedStore, match="codec"):
        index.read_summary(LocalFiles(store))


def test_row_groups_and_columns_match_pyarrow(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(9))
    rewritten(store / INDEX_FILE, lambda table: table, row_group_size=2, data_page_size=64)
    names = ["sha256", "row", "max_abs_dS"]
    found = index.read_columns(LocalFiles(store), INDEX_FILE, names, store_header(range(9)))
    assert found.equals(pq.read_table(store / INDEX_FILE, columns=names).select(found.column_names))


def test_many_images_in_few_bytes_are_rejected(tmp_path):
    """A forged header allows the rows, but distinct digests need more bytes."""
    rows = 100_000
    text = pa.array(["0" * 64]).take(pa.array(np.zeros(rows, np.int64)))
    zeros = np.zeros(rows)
    columns = [text if field.type == pa.string() else pa.array(zeros, field.type) for field in index._INDEX_SCHEMA]
    pq.write_table(
        pa.table(columns, schema=index._INDEX_SCHEMA), tmp_path / INDEX_FILE, compression="zstd", use_dictionary=False
    )
    with pytest.raises(DamagedStore, match="claims 100000 different images in"):
        index.hash_column(LocalFiles(tmp_path), "image_hash", store_header([0], segments=(rows,)))


@pytest.mark.parametrize("version", [2.0, True, "2", 1.0, None, 0, -1])
def test_a_version_is_an_integer(version):
    found = store_header([0]).model_dump(mode="json") | {"format_version": version}
    with pytest.raises(DamagedStore, match="format_version"):
        parse_header(found, "here")


def lax(value: object) -> list[object]:
    """JSON values that compare equal in Python, but have another type."""
    if isinstance(value, bool):
        return [int(value), float(value)]
    if isinstance(value, int):
        return [float(value), *([bool(value)] if value in (0, 1) else [])]
    return []


def changes_of(value: object) -> list[object]:
    """Copies of a document in which one integer or boolean has another type, one copy for each."""
    if isinstance(value, dict):
        return [value | {key: changed} for key, held in value.items() for changed in changes_of(held)]
    if isinstance(value, list):
        return [
            [*value[:at], changed, *value[at + 1 :]] for at, held in enumerate(value) for changed in changes_of(held)
        ]
    return lax(value)


def test_integers_in_small_files_must_have_the_exact_type(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(2), shard_rows=1, failing=[1])
    header = read_header(store)
    for document in changes_of(header.model_dump(mode="json")):
        with pytest.raises(DamagedStore, match="header of here is invalid"):
            parse_header(document, "here")
    for shard in range(2):
        for document in changes_of(json.loads((store / f"ledger/00000{shard}.json").read_text())):
            with pytest.raises(DamagedStore, match="here is damaged"):
                parse_record(json.dumps(document).encode(), shard, "here")
    summary = json.loads(pq.read_schema(store / "index.parquet").metadata[b"medalign"])
    for document in changes_of(summary | {"header": {}}):
        with pytest.raises(DamagedStore, match="here is damaged"):
            parse_model(IndexSummary, json.dumps(document), 1 << 20, "here")
    file = store / "E_v/zarr.json"
    whole = json.loads(file.read_text())
    checked = {name: whole[name] for name in ("zarr_format", "shape", "chunk_grid")}
    assert len(changes_of(checked)) > 6
    for document in changes_of(checked):
        file.write_text(json.dumps(whole | document))
        with pytest.raises(DamagedStore, match="does not match the store's header"):
            check_arrays(LocalFiles(store), header, header.profiles)
    file.write_text(json.dumps(whole))
    check_arrays(LocalFiles(store), header, header.profiles)


@pytest.mark.parametrize(("wrong", "shown", "end"), [(2, 2, ""), (3, 3, ""), (5, 3, "; 2 more"), (1001, 0, "")])
def test_only_the_first_few_invalid_values_are_described(wrong, shown, end):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[int]).validate_python(["x"] * wrong)
    text = describe(caught.value)
    assert text.count("valid integer") == shown
    assert text.endswith(end)
    assert shown or text == "1001 of its values are invalid"
