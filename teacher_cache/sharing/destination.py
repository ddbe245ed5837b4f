"""A folder, bucket or repository that stores are pushed to."""

import hashlib
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ..store.access.connection import Connection
from ..store.access.transports import HTTP, read_parts, read_whole

_BLOCK: Final = 8 << 20
"""Bytes of one request."""


class Destination:
    """Objects below one place, over fsspec; threads may share it."""

    def __init__(self, location: str) -> None:
        """No connection is made.

        Raises:
            StoreError: it can only be read from, or carries credentials.
        """
        self._connection = Connection(location)
        if self._connection.protocol in HTTP:
            raise StoreError(
                f"nothing can be pushed to {location}: web servers are for reading. Copy the store's folder to the "
                "server's disk (manifest-sha256.txt last), or push to s3://, gs://, hf:// or a folder"
            )

    @property
    def location(self) -> str:
        return self._connection.location

    @property
    def uploads_at_once(self) -> int:
        """Hugging Face makes a commit of every file, and commits stand in each other's way."""
        return 1 if self._connection.protocol == "hf" else 8

    @property
    def is_folder(self) -> bool:
        """Whether it is on a disk of this machine."""
        return self._connection.protocol == "file"

    def sizes(self) -> dict[str, int]:
        """Key -> length of everything that is there."""
        base = self._connection.path("")
        try:
            found = self._connection.call("listing", "find", base, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(base) :].lstrip("/"): int(entry["size"]) for name, entry in found.items()}

    def read(self, key: str) -> bytes:
        """A whole file of bounded length."""
        place = self._connection
        return place.patiently(key, lambda: read_whole(place.filesystem, place.protocol, place.path(key), place.budget))

    def digest(self, key: str, size: int) -> str | None:
        """SHA-256 of the first `size` bytes of a file that is there; `None` where it has fewer, or is gone."""
        place, digest = self._connection, hashlib.sha256()
        for start in range(0, size, _BLOCK):
            block = min(_BLOCK, size - start)
            try:
                part = place.patiently(key, lambda: self._part(key, start, block))  # noqa: B023
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
        """Remove a file; one that is gone already is no failure."""
        try:
            self._connection.call(key, "rm_file", self._connection.path(key))
        except FileNotFoundError:
            return

    def _part(self, key: str, start: int, length: int) -> bytes:
        place = self._connection
        (part,) = read_parts(place.filesystem, place.protocol, [(place.path(key), start, length)], place.budget)
        if isinstance(part, BaseException):
            raise part
        return bytes(part)

    def _writing(self, key: str, method: str, *arguments: object, length: int) -> None:
        self._connection.budget.move(length)  # it may take the time that its length needs
        try:
            self._connection.call(key, method, *arguments, length=length)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.location} cannot be written to: its bucket or repository does not exist"
            ) from error
