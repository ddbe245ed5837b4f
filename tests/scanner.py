"""Looks for words in every byte of a folder: raw, decompressed, escaped, encoded, hashed, and in file names."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as parquet
import zarr

SHORTEST = 8
"""Letters of base64 that are looked for; fewer are found in any noise."""


def find_words(root: Path, words: Iterable[str]) -> list[str]:
    """`WHERE: WORD (how it is written)` for everything found under `root`."""
    patterns = [(pattern, f"{word} ({how})") for word in words for how, pattern in writings(word)]
    return [
        f"{where}: {shown}"
        for where, content in views(root)
        for pattern, shown in patterns
        if pattern in content or pattern in content.lower()
    ]


def writings(word: str) -> Iterator[tuple[str, bytes]]:
    """The ways in which a word may stand in a file; all but base64 and digests in lower case."""
    lower = word.lower()
    yield "UTF-8", lower.encode()
    yield "UTF-16 LE", lower.encode("utf-16-le")
    yield "UTF-16 BE", lower.encode("utf-16-be")
    yield "hex", word.encode().hex().encode()
    yield "quoted", quote(lower, safe="").lower().encode()
    for text in {word, lower, word.upper()}:
        for shift in range(3):
            coded = base64.b64encode(bytes(shift) + text.encode())[
                (0, 2, 3)[shift] : -4
            ]  # its neighbors decide the rest
            if len(coded) >= SHORTEST:
                yield "base64", coded
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, text.encode())
            yield name, digest.hexdigest().encode()
            yield f"{name}, raw", digest.digest()
    if len(word) == 64 and all(letter in "0123456789abcdef" for letter in word):
        yield "raw", bytes.fromhex(word)


def views(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file's name and bytes, and what its format hides."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        yield "name", name.encode()
        if path.is_file():
            yield from content_views(name, path.read_bytes())
    for group in sorted(path.parent for path in root.rglob("zarr.json")):
        if json.loads((group / "zarr.json").read_text())["node_type"] == "array":
            values = zarr.open_array(group, mode="r")[:]
            yield f"{group.relative_to(root)} decoded", values.tobytes()


def content_views(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if data[:4] == b"PAR1":
        yield from parquet_views(name, data)
    if data[:1] in (b"{", b"["):
        yield f"{name} unescaped", "\n".join(texts(json.loads(data))).encode()
    if data[:2] == b"\x1f\x8b":
        yield from content_views(f"{name} unpacked", gzip.decompress(data))
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                yield f"{name} member", member.name.encode()
                file = archive.extractfile(member)
                if file is not None:
                    yield from content_views(f"{name}/{member.name}", file.read())


def parquet_views(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Key-value metadata, and every column decompressed."""
    metadata = parquet.read_metadata(io.BytesIO(data)).metadata or {}
    for key, value in metadata.items():
        yield f"{name} metadata", key + b"\n" + value
        if value[:1] == b"{":
            yield f"{name} metadata unescaped", "\n".join(texts(json.loads(value))).encode()
    for column in pl.read_parquet(io.BytesIO(data)).iter_columns():
        yield f"{name} column {column.name}", b"\n".join(as_bytes(value) for value in column.to_list())


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def texts(value: Any) -> Iterator[str]:
    """Every key and leaf of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)
