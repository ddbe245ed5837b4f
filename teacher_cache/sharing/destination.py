"""A folder, bucket or repository to which stores are pushed."""

import hashlib
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ..store.access.connection import Connection
from ..store.access.transports import HTTP, read_parts, read_whole

_BLOCK: Final = 8 << 20
"""Bytes per request."""


class Destination:
    """The objects below one location, through fsspec; threads may share it."""

    def __init__(self, location: str) -> None:
        """Check the location without connecting.

        Raises:
            StoreError: the location is read-only, or its URL contains credentials.
        """
        self._connection = Connection(location)
        if self._connection.protocol in HTTP:
            raise StoreError(
                f"cannot push to {location}: web servers are read-only. Copy the store's folder to the server's disk "
                "(manifest-sha256.txt last), or push to s3://, gs://, hf:// or a folder"
            )

    @property
    def location(self) -> str:
        return self._connection.location

    @property
    def uploads_at_once(self) -> int:
        """Number of concurrent uploads: 1 for Hugging Face, where every file is a commit and commits conflict."""
        return 1 if self._connection.protocol == "hf" else 8

    @property
    def is_folder(self) -> bool:
        """Whether it is a local folder."""
        return self._connection.protocol == "file"

    def sizes(self) -> dict[str, int]:
        """Key -> size of every existing file."""
        base = self._connection.path("")
        try:
            listing = self._connection.call("listing", "find", base, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(base) :].lstrip("/"): int(entry["size"]) for name, entry in listing.items()}

    def read(self, key: str) -> bytes:
        """Read a whole file of bounded size."""
        connection = self._connection
        return connection.patiently(
            key, lambda: read_whole(connection.filesystem, connection.protocol, connection.path(key), connection.budget)
        )

    def digest(self, key: str, size: int) -> str | None:
        """SHA-256 of the first `size` bytes of a file; `None` if it is shorter or missing."""
        connection, digest = self._connection, hashlib.sha256()
        for start in range(0, size, _BLOCK):
            block = min(_BLOCK, size - start)
            try:
                part = connection.patiently(key, lambda: self._part(key, start, block))  # noqa: B023
            except FileNotFoundError:
                return None
            if len(part) != block:
                return None
            digest.update(part)
        return digest.hexdigest()

    def write(self, key: str, data: bytes) -> None:
        self._writing(key, "pipe_file", self._connection.path(key), data, length=len(data))

    def put(self, key: str, file: Path) -> None:
        self._writing(key, "put_file", str(file), self._connection.path(key), length=file.stat().st_size)

    def delete(self, key: str) -> None:
        """Delete a file if it exists."""
        try:
            self._connection.call(key, "rm_file", self._connection.path(key))
        except FileNotFoundError:
            return

    def _part(self, key: str, start: int, length: int) -> bytes:
        connection = self._connection
        (part,) = read_parts(
            connection.filesystem, connection.protocol, [(connection.path(key), start, length)], connection.budget
        )
        if isinstance(part, BaseException):
            raise part
        return bytes(part)

    def _writing(self, key: str, method: str, *arguments: object, length: int) -> None:
        self._connection.budget.move(length)  # extends the time limit by the size of the upload
        try:
            self._connection.call(key, method, *arguments, length=length)
        except FileNotFoundError as error:
            raise StoreError(f"cannot write to {self.location}: its bucket or repository does not exist") from error
