"""The files of a store behind a URL: s3://, gs://, hf://, http(s):// and whatever else fsspec knows.

Only what is asked for is moved: ranges are fetched concurrently, and nothing but a small index is kept.
"""

import io
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Final

from ....errors import StoreError
from ....plain_text import is_url
from ..file_names import GROUP_FILE
from .connection import Connection, http_status
from .seekable import SeekableReader
from .store_files import Buffer, LocalFiles, Range, StoreFiles
from .transports import HTTP, IgnoresRanges, file_size, read_parts, read_whole

_PAST_THE_END: Final = 416
_SMALL: Final = 1 << 20
"""Bytes; a Parquet file up to this is fetched whole, once, where its columns would take several requests each."""


class RemoteFiles:
    """A store behind a URL. Connects when first used, anew in each process, so it survives pickling and forking."""

    def __init__(self, url: str) -> None:
        """No connection is made.

        Raises:
            StoreError: the URL is misspelled, or carries credentials or a query.
        """
        self._connection = Connection(url)
        self._has_ranges = self._connection.protocol not in HTTP  # other protocols always have them
        self._small_files: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[type["RemoteFiles"], tuple[str]]:
        return RemoteFiles, (self.location,)

    @property
    def location(self) -> str:
        return self._connection.location

    def read(self, key: str) -> bytes:
        place = self._connection
        return place.patiently(key, lambda: read_whole(place.filesystem, place.protocol, place.path(key), place.budget))

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytearray]:
        if not ranges:
            return []
        self._require_ranges()
        done = {position: bytearray() for position, (_, _, length) in enumerate(ranges) if not length}
        self._connection.patiently(ranges[0][0], lambda: self._fetch(ranges, done))
        return [done[position] for position in range(len(ranges))]

    def open(self, key: str) -> BufferedReader:
        return open_ranged(self, key, self._small_files)

    def size(self, key: str) -> int:
        place = self._connection
        size = place.patiently(key, lambda: file_size(place.filesystem, place.protocol, place.path(key), place.budget))
        if size is None:
            raise StoreError(f"the server of {self.location} does not say how long {key} is: it cannot hold a store")
        return size

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, ranges: Sequence[Range], done: dict[int, bytearray]) -> None:
        """Ask for the ranges that are not `done` yet; raises the first failure after keeping the successes."""
        place = self._connection
        missing = [position for position in range(len(ranges)) if position not in done]
        asked = [(place.path(ranges[position][0]), *ranges[position][1:]) for position in missing]
        answers = read_parts(place.filesystem, place.protocol, asked, place.budget)
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
        """Ask an HTTP server for one byte of a small file before asking it for parts of large ones."""
        if not self._has_ranges:
            place = self._connection
            first = [(place.path(GROUP_FILE), 0, 1)]

            def ask() -> None:
                (answer,) = read_parts(place.filesystem, place.protocol, first, place.budget)
                if isinstance(answer, IgnoresRanges):
                    raise self._no_ranges()
                if isinstance(answer, BaseException):
                    raise answer

            place.patiently(GROUP_FILE, ask)
            self._has_ranges = True

    def _no_ranges(self) -> StoreError:
        return StoreError(
            f"the server of {self.location} ignores range requests, so that every row would cost a whole shard. Serve "
            "the store with nginx, Apache or S3, which answer them"
        )


def open_files(location: str | Path) -> StoreFiles:
    """Files at a path, or at a URL such as s3://bucket/store.zarr.

    Raises:
        StoreError: the URL is misspelled, or its protocol is unknown or needs a package that is not installed.
    """
    return RemoteFiles(str(location)) if is_url(str(location)) else LocalFiles(Path(location))


class _RangedFile(SeekableReader):
    """A file over range requests."""

    def __init__(self, files: StoreFiles, key: str, size: int) -> None:
        super().__init__(size)
        self._files, self._key = files, key

    def read_at(self, start: int, length: int) -> Buffer:
        return self._files.read_ranges([(self._key, start, length)])[0]


def open_ranged(files: StoreFiles, key: str, small_files: dict[str, bytes]) -> BufferedReader:
    """A file of a store that fetches the parts that are read; small ones are kept in `small_files`."""
    if key not in small_files:
        size = files.size(key)
        if size > _SMALL:
            return BufferedReader(_RangedFile(files, key, size), buffer_size=1 << 16)
        small_files[key] = files.read(key)
    return BufferedReader(io.BytesIO(small_files[key]))
