"""What a power cut would leave: file contents and folder entries that were not flushed to disk are lost.

POSIX makes a file's content durable by `fsync` of the file, and its name by `fsync` of the folder it is in. The calls
are recorded, and nothing is flushed.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from medalign.atomic import is_temporary


class Disk:
    """The folder `root` on a disk that keeps only what was flushed; everything in it at the start was."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, ignored: tuple[str, ...] = (".lock",)) -> None:
        """`ignored`: names of files and folders of work in progress, besides medalign's temporary ones."""
        self.root, self.ignored = root, ignored
        self.wrong: list[str] = []
        """Names given before what they stand for, or an earlier change, was on disk."""
        self._contents: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        for folder in self._tree(root, everything=True):
            self._keep(folder)
        monkeypatch.setattr("os.fsync", self._fsync)
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(f"os.{name}", self._checked(getattr(os, name)))

    def lost(self, root: Path | None = None) -> list[str]:
        """Files whose content, and folders whose entries, would not be as they are after a power cut."""
        return [
            str(path.relative_to(self.root)) for path in self._tree(root or self.root) if not self._is_on_disk(path)
        ]

    def _is_on_disk(self, path: Path) -> bool:
        number = path.stat().st_ino
        if not path.is_dir():
            return self._contents.get(number) == path.read_bytes()
        kept = self._entries.get(number, {})
        now = {entry.name: entry.inode() for entry in os.scandir(path)}
        return all(kept.get(name) == now.get(name) for name in kept.keys() | now.keys() if not self._is_ignored(name))

    def _tree(self, path: Path, *, everything: bool = False) -> Iterator[Path]:
        yield path
        if path.is_dir():
            for child in sorted(path.iterdir()):
                if everything or not self._is_ignored(child.name):
                    yield from self._tree(child, everything=everything)

    def _is_ignored(self, name: str) -> bool:
        return is_temporary(name) or name in self.ignored

    def _keep(self, path: Path) -> None:
        """Flush a file or a folder."""
        number = path.stat().st_ino
        if path.is_dir():
            self._entries[number] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._contents[number] = path.read_bytes()

    def _fsync(self, descriptor: int) -> None:
        self._keep(Path(f"/proc/self/fd/{descriptor}"))

    def _checked(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            where = Path(target)
            if where.is_relative_to(self.root) and not self._is_ignored(where.name):
                self.wrong += [f"{path} before {where.name}" for path in [*self.lost(Path(source)), *self.lost()]]
            return real(source, target, **options)

        return call
