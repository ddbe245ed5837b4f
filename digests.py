"""The SHA-256 of a file."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

_BLOCK = 4 << 20
"""Bytes that are read at a time; behind a URL each block is a request."""


@runtime_checkable
class Readable(Protocol):
    """A file that is open for reading."""

    def read(self, size: int, /) -> bytes: ...


@runtime_checkable
class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None: ...


def add_file(
    digest: Digest, file: Readable, *, most: int | None = None, advance: Callable[[int], None] | None = None
) -> int:
    """Add the rest of an open file to a digest, block by block; return its number of bytes.

    Args:
        digest: receives the bytes.
        file: is read to its end.
        most: largest number of bytes; None: no limit.
        advance: called with the number of bytes of each block.

    Raises:
        ValueError: the file has more than `most` bytes.
    """
    size = 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
        if most is not None and size > most:
            raise ValueError(f"more than {most} bytes")
        if advance is not None:
            advance(len(block))
    return size


def sha256_of(file: Path | Readable, *, most: int | None = None) -> str:
    """SHA-256 of a file's bytes, or of the rest of an open file, in hex.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has more than `most` bytes.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return sha256_of(opened, most=most)
    digest = hashlib.sha256()
    add_file(digest, file, most=most)
    return digest.hexdigest()
