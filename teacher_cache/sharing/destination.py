"""A folder, bucket or repository that stores are pushed to."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...errors import StoreError
from ..store.connection import HTTP, Connection

T = TypeVar("T")


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

    def sizes(self) -> dict[str, int]:
        """Key -> length of everything that is there."""
        base = self._connection.path("")
        try:
            found = self._do("", lambda: self._connection.filesystem.find(base, detail=True))
        except FileNotFoundError:
            return {}
        return {name[len(base) :].lstrip("/"): int(entry["size"]) for name, entry in found.items()}

    def read(self, key: str) -> bytes:
        return self._do(key, lambda: bytes(self._connection.filesystem.cat_file(self._connection.path(key))))

    def write(self, key: str, data: bytes) -> None:
        self._writing(key, lambda: self._connection.filesystem.pipe_file(self._connection.path(key), data))

    def put(self, key: str, file: Path) -> None:
        self._writing(key, lambda: self._connection.filesystem.put_file(str(file), self._connection.path(key)))

    def delete(self, key: str) -> None:
        self._do(key, lambda: self._connection.filesystem.rm_file(self._connection.path(key)))

    def _writing(self, key: str, work: Callable[[], object]) -> None:
        try:
            self._do(key, work)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.location} cannot be written to: its bucket or repository does not exist"
            ) from error

    def _do(self, key: str, work: Callable[[], T]) -> T:
        return self._connection.patiently(key or "listing", work)
