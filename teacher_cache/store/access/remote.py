"""The files of a store behind a URL: s3://, gs://, hf://, http(s):// and any other protocol that fsspec supports.

Only the requested ranges are transferred, concurrently, and only small Parquet files are cached.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ....errors import StoreError
from ....plain_text import is_url
from ..file_names import GROUP_FILE
from .connection import Connection, http_status
from .store_files import LocalFiles, OpenFile, Range, StoreFiles
from .transports import HTTP, IgnoresRanges, file_size, read_parts, read_whole

_PAST_THE_END: Final = 416
_SMALL: Final = 1 << 20
"""Bytes. A Parquet file up to this size is fetched whole, once, because each column would take several requests."""


class RemoteFiles:
    """A store behind a URL. It connects on first use, once in each process, so it survives pickling and forking."""

    def __init__(self, url: str) -> None:
        """Check the URL without connecting.

        Raises:
            StoreError: the URL is misspelled, or contains credentials or a query.
        """
        self._connection = Connection(url)
        self._has_ranges = self._connection.protocol not in HTTP  # all other protocols support them
        self._small_files: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[type["RemoteFiles"], tuple[str]]:
        return RemoteFiles, (self.location,)

    @property
    def location(self) -> str:
        return self._connection.location

    def read(self, key: str) -> bytes:
        connection = self._connection
        return connection.patiently(
            key, lambda: read_whole(connection.filesystem, connection.protocol, connection.path(key), connection.budget)
        )

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytearray]:
        if not ranges:
            return []
        self._require_ranges()
        done = {position: bytearray() for position, (_, _, length) in enumerate(ranges) if not length}
        self._connection.patiently(ranges[0][0], lambda: self._fetch(ranges, done))
        return [done[position] for position in range(len(ranges))]

    def open(self, key: str) -> OpenFile:
        return open_ranged(self, key, self._small_files)

    def size(self, key: str) -> int:
        connection = self._connection
        size = connection.patiently(
            key, lambda: file_size(connection.filesystem, connection.protocol, connection.path(key), connection.budget)
        )
        if size is None:
            raise StoreError(
                f"the server of {self.location} does not report the size of {key}: it cannot be used to serve a store"
            )
        return size

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, ranges: Sequence[Range], done: dict[int, bytearray]) -> None:
        """Request the ranges that are not in `done` yet. Keeps those that succeed, then raises the first failure."""
        connection = self._connection
        missing = [position for position in range(len(ranges)) if position not in done]
        requested = [(connection.path(ranges[position][0]), *ranges[position][1:]) for position in missing]
        answers = read_parts(connection.filesystem, connection.protocol, requested, connection.budget)
        failures = []
        for position, answer in zip(missing, answers, strict=True):
            if isinstance(answer, IgnoresRanges):
                raise self._no_ranges()
            if not isinstance(answer, BaseException):
                done[position] = bytearray(answer)
            elif http_status(answer) == _PAST_THE_END:
                done[position] = bytearray()
            else:
                failures.append(answer)
        if failures:
            raise failures[0]

    def _require_ranges(self) -> None:
        """Test whether an HTTP server supports range requests: request one byte of a small file."""
        if not self._has_ranges:
            connection = self._connection
            first = [(connection.path(GROUP_FILE), 0, 1)]

            def request_byte() -> None:
                (answer,) = read_parts(connection.filesystem, connection.protocol, first, connection.budget)
                if isinstance(answer, IgnoresRanges):
                    raise self._no_ranges()
                if isinstance(answer, BaseException):
                    raise answer

            connection.patiently(GROUP_FILE, request_byte)
            self._has_ranges = True

    def _no_ranges(self) -> StoreError:
        return StoreError(
            f"the server of {self.location} ignores range requests, so reading a row would download a whole shard. "
            "Serve the store with nginx, Apache or S3, which support them"
        )


def open_files(location: str | Path) -> StoreFiles:
    """The files of the store at a path, or at a URL such as s3://bucket/store.zarr.

    Raises:
        StoreError: the URL is misspelled, or its protocol is unknown or requires a package that is not installed.
    """
    return RemoteFiles(str(location)) if is_url(str(location)) else LocalFiles(Path(location))


def open_ranged(files: StoreFiles, key: str, small_files: dict[str, bytes]) -> OpenFile:
    """Open a file of a store; parts are fetched as they are read. Small files are cached in `small_files`."""
    if key not in small_files:
        size = files.size(key)
        if size > _SMALL:
            from .ranged_file import RangedFile

            return RangedFile(files, key, size)
        small_files[key] = files.read(key)
    return io.BytesIO(small_files[key])
