"""Structure-aware mutations of a store's small files, seeded: what strangers, tools and disks may make of them."""

import copy
import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 10**18, 10**400, -0.0, 1.5, 1e308,
    float("nan"), float("inf"), "", "x", "\ud800", "x" * 70_000, "../../etc/passwd", "a\x00b", "NaN", "0" * 64,
    "\u0663x\u0663", "99999999x99999999", "1e9",
    [], {}, [[]], [None], {"": None}, ["x"] * 3000, "\x1b[31m", "float32", "int8", "gram12",
]  # fmt: skip


def mutate(kind: str, data: bytes, draw: random.Random) -> bytes:
    """One mutation of a file; `kind` is `json`, `parquet`, `manifest` or `zip`."""
    own: Callable[[bytes, random.Random], bytes] = {
        "json": _json,
        "parquet": _parquet,
        "manifest": _manifest,
        "zip": _zip,
    }[kind]
    return own(data, draw) if draw.random() < 0.75 else _bytes(data, draw)


def _bytes(data: bytes, draw: random.Random) -> bytes:
    changed, at = bytearray(data), draw.randrange(len(data))
    way = draw.randrange(9)
    if way == 0:
        changed[at] ^= 1 << draw.randrange(8)
    elif way == 1:
        changed[at] = draw.choice([0, 1, 127, 128, 255])
    elif way == 2:
        return data[:at]
    elif way == 3:
        return data[:at] + data[at + draw.randrange(1, 40) :]
    elif way == 4:
        return data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:]
    elif way == 5:
        return b"\xef\xbb\xbf" + data
    elif way == 6:
        return data + draw.choice([b"\n", b" ", b"\x00", b"{}", data])
    elif way == 7:
        return draw.choice([b"", b"\n", b"{", b"[" * 100_000, b"PAR1", b"PAR1" * 3, b"null", b"\xff\xfe"])
    else:
        at, other = draw.randrange(len(data)), draw.randrange(len(data))
        size = draw.randrange(1, 16)
        changed[at : at + size] = data[other : other + size]
    return bytes(changed)


def mutate_value(value: Any, draw: random.Random) -> Any:
    """A JSON value with one part changed, removed, repeated or added."""
    parts = list(_parts(value))
    holder, key = draw.choice(parts) if parts else (None, None)
    if holder is None:
        return _hostile(draw)
    way = draw.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.insert(key, holder[draw.randrange(len(holder))])
    elif way == 2 and isinstance(holder, dict):
        holder[draw.choice(["", "x", "\x1b[31m", "__class__", "rows", "bytes"])] = _hostile(draw)
    elif way == 3:
        other, name = draw.choice(parts)
        holder[key], other[name] = other[name], holder[key]
        if _is_circular(value):
            return _hostile(draw)
    elif way == 4 and type(holder[key]) is int:
        holder[key] += draw.choice([-1, 1, 2**31, 2**62, -holder[key] - 1])
    else:
        holder[key] = _hostile(draw)
    return value


def _hostile(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(HOSTILE))


def _is_circular(value: Any) -> bool:
    try:
        json.dumps(value)
    except ValueError as error:
        return "Circular" in str(error)
    return False


def _parts(value: Any) -> Any:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _parts(value[key])


def _json(data: bytes, draw: random.Random) -> bytes:
    value = json.loads(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        value = mutate_value(value, draw)
    text = json.dumps(value, indent=draw.choice([None, 2]), ensure_ascii=draw.random() < 0.5)
    return text.encode(errors="surrogatepass")


def _manifest(data: bytes, draw: random.Random) -> bytes:
    lines = data.decode().splitlines()
    at = draw.randrange(len(lines))
    digest, key = lines[at][:64], lines[at][66:]
    line = draw.choice(
        [
            None, "", f"{digest} {key}", f"{digest}  ", f"{digest}  ../{key}", f"{digest}  /{key}",
            f"{digest.upper()}  {key}", f"{'g' * 64}  {key}", f"{digest[:-1]}  {key}", f"{'0' * 64}  {key}",
            f"{digest}  {key}\x00", f"{digest} *{key}", f"{digest}  {key}\r", f"{digest}  {'k' * 5000}", lines[0],
            f"{digest}  \u00e9", f"{digest}  ledger/999999.json",
        ]
    )  # fmt: skip
    lines[at : at + 1] = [] if line is None else [line] * draw.choice([1, 1, 2])
    if draw.random() < 0.2:
        draw.shuffle(lines)
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(data: bytes, draw: random.Random) -> bytes:
    """Another table, another encoding, other metadata, or the same bytes with a number of footer or pages changed."""
    if draw.random() < 0.4:
        return _numbers(data, draw)
    table = pq.read_table(io.BytesIO(data))
    way = draw.randrange(8)
    if way == 0 and table.schema.metadata:
        about = mutate_value(json.loads(table.schema.metadata[b"medalign"]), draw)
        table = table.replace_schema_metadata({"medalign": json.dumps(about).encode(errors="surrogatepass")})
    elif way == 1:
        rows = [draw.randrange(len(table)) for _ in range(draw.choice([0, 1, len(table), 500]))] if len(table) else []
        table = table.take(pa.array(rows, pa.int64()))
    elif way in (2, 3, 4):
        table = _other_column(table, draw)
    elif way == 5:
        table = table.select(draw.sample(table.column_names, draw.randrange(1, len(table.column_names) + 1)))
    elif way == 6:
        table = table.append_column("x", pa.nulls(len(table), pa.string()))
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        compression=draw.choice(["zstd", "zstd", "snappy", "none", "gzip", "brotli", "lz4"]),
        use_dictionary=draw.random() < 0.3,
        write_page_checksum=draw.random() < 0.5,
        row_group_size=draw.choice([1, 3, 65_536]),
        data_page_version=draw.choice(["1.0", "2.0"]),
        data_page_size=draw.choice([1, 100, 1 << 20]),
    )
    return out.getvalue()


def _other_column(table: pa.Table, draw: random.Random) -> pa.Table:
    at = draw.randrange(len(table.column_names))
    values, kind = table.column(at).to_pylist(), table.schema.field(at).type
    if draw.random() < 0.3:
        types = [
            pa.large_string(),
            pa.string_view(),
            pa.int64(),
            pa.float64(),
            pa.uint64(),
            pa.list_(pa.int8()),
            pa.null(),
        ]
        other = draw.choice(types)
        column = pa.nulls(len(values), other) if draw.random() < 0.5 else _cast(table.column(at), other)
        return table.set_column(at, table.column_names[at], column)
    hostile: list[Any] = [None, "", "0" * 64, "F" * 64, "x" * 100_000, "\x1b[31m", "\x00"]
    if not pa.types.is_string(kind):
        hostile = [None, 0, 1, 2**31 - 1, *([-1, -(2**31)] if kind != pa.uint32() else [2**32 - 1])]
        hostile = [None, -0.0, 3e38, float("nan"), float("inf")] if pa.types.is_floating(kind) else hostile
        hostile += [2**62, -(2**62)] if kind == pa.int64() else []
    for _ in range(draw.choice([1, 1, 3])):
        if values:
            source = draw.choice([hostile, values])
            values[draw.randrange(len(values))] = draw.choice(source)
    return table.set_column(at, table.schema.field(at), pa.array(values, kind))


def _cast(column: Any, kind: pa.DataType) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return pa.nulls(len(column), kind)


def _numbers(data: bytes, draw: random.Random) -> bytes:
    """Bytes of the footer, or of a page's header, as another number: Thrift's are seven bits a byte."""
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    if draw.random() < 0.2:
        return (
            data[:-8] + draw.choice([0, 1, length - 1, length + 1, 2**31, 2**32 - 1]).to_bytes(4, "little") + data[-4:]
        )
    end = draw.choice([start + length, start + 200])
    at = draw.randrange(start, min(end, start + length)) if draw.random() < 0.7 else draw.randrange(4, max(5, start))
    size = draw.choice([0, 1, 1, 1, 2])
    number = draw.choice(
        [
            b"", b"\x00", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x80\x80\x80\x01", b"\x1c", b"\xfc\xff\x03",
        ]
    )  # fmt: skip
    changed = data[:at] + number + data[at + size :]
    grown = len(changed) - len(data) if at >= start else 0
    footer = length + grown if draw.random() < 0.8 else length
    return changed[:-8] + footer.to_bytes(4, "little") + data[-4:]


def _zip(data: bytes, draw: random.Random) -> bytes:
    """Fields of a local or central record: flags, methods, sizes, offsets, lengths of names."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        starts = _places(data, draw.choice([b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"]))
        if not starts:
            continue
        at = draw.choice(starts) + draw.randrange(0, 60)
        size = draw.choice([1, 2, 4, 8])
        value = draw.choice([0, 1, 2, 8, 0x800, 0xFF, 0xFFFF, 0xFFFFFFFF, 2**63, draw.getrandbits(64)])
        changed[at : at + size] = (value % 256**size).to_bytes(size, "little")[: max(0, len(changed) - at)]
    return bytes(changed)


def _places(data: bytes, mark: bytes) -> list[int]:
    places, at = [], data.find(mark)
    while at >= 0:
        places.append(at)
        at = data.find(mark, at + 1)
    return places


def flipped(data: bytes, bit: int) -> bytes:
    """The same with one bit changed."""
    changed = np.frombuffer(data, np.uint8).copy()
    changed[bit // 8] ^= 1 << bit % 8
    return changed.tobytes()
