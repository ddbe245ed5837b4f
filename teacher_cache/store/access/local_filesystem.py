"""fsspec's local filesystem for pushing to a folder: files are written atomically and links are never followed."""

import shutil
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ....atomic import AtomicFile
from ..filesystem.durable_files import make_folders, remove_leftovers
from ..filesystem.plain_files import check_plain


class PlainFileSystem(LocalFileSystem):  # type: ignore[misc]
    """The methods that medalign writes with; all others are inherited."""

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        """List all files below a folder, after removing temporary files that killed commands left there.

        Raises:
            StoreError: one of them is a link.
        """
        check_plain(Path(path))
        remove_leftovers(Path(path))
        return super().find(path, *args, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write a file; with mode "create" it must not exist yet."""
        target = Path(self._strip_protocol(path))
        if mode == "create" and target.exists():
            raise FileExistsError(path)
        make_folders(target.parent, mode=0o777)
        with AtomicFile(target) as file:
            file.write(value)

    def put_file(self, lpath: str, rpath: str, *args: Any, **options: Any) -> None:
        """Copy a local file to `rpath`."""
        target = Path(self._strip_protocol(rpath))
        make_folders(target.parent, mode=0o777)
        with Path(lpath).open("rb") as source, AtomicFile(target) as file:
            shutil.copyfileobj(source, file)
