"""A folder as a place to push to: fsspec's local filesystem, but files appear whole and nothing goes through a link."""

import shutil
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ....atomic import AtomicFile
from ..filesystem.durable_files import make_folders, remove_leftovers
from ..filesystem.plain_files import check_plain


class PlainFileSystem(LocalFileSystem):  # type: ignore[misc]
    """What medalign writes with of fsspec's interface; the rest is as it is there."""

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        """List all files below a folder, without what killed commands left there.

        Raises:
            StoreError: a link is among them.
        """
        check_plain(Path(path))
        remove_leftovers(Path(path))
        return super().find(path, *args, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write a file; with mode "create" one that does not exist."""
        target = Path(self._strip_protocol(path))
        if mode == "create" and target.exists():
            raise FileExistsError(path)
        make_folders(target.parent, mode=0o777)
        with AtomicFile(target) as file:
            file.write(value)

    def put_file(self, lpath: str, rpath: str, *args: Any, **options: Any) -> None:
        """Copy a file to this place."""
        target = Path(self._strip_protocol(rpath))
        make_folders(target.parent, mode=0o777)
        with Path(lpath).open("rb") as source, AtomicFile(target) as file:
            shutil.copyfileobj(source, file)
