"""Find files whose names are stored in another Unicode form: `é` as one character (NFC) or as two (NFD)."""

import posixpath
import unicodedata
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...path_checks import is_absent


def as_stored(path: Path) -> Path:
    """The path of an existing file, as spelled on disk; unchanged if no file has this name in any Unicode form.

    Raises:
        InputError: Several files have this name in different Unicode forms, and none matches exactly.
    """
    found = StoredNames(Path(path.anchor)).find(path.relative_to(path.anchor).as_posix())
    return path if found is None else path.anchor / Path(found)


class StoredNames:
    """Look-up of names under a root, by exact bytes first, then by canonical form."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """A relative path as spelled on disk; `None` if it does not exist.

        Raises:
            InputError: Several files have this name in different Unicode forms, and none matches exactly.
        """
        if not is_absent(self._root / path):
            return path
        if path.isascii():
            return None
        spelled = ""
        for part in PurePosixPath(path).parts:
            stored = self._stored(spelled, part)
            if stored is None:
                return None
            spelled = posixpath.join(spelled, stored)
        return spelled

    def _stored(self, folder: str, name: str) -> str | None:
        if not is_absent(self._root / folder / name):
            return name
        entries = self._listed(folder).get(unicodedata.normalize("NFC", name), [])
        if len(entries) > 1:
            raise InputError(f"{self._root / folder} has {name} in {len(entries)} Unicode forms; rename one of them")
        return entries[0] if entries else None

    def _listed(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._entries:
            listed: dict[str, list[str]] = {}
            for name in _names(self._root / folder):
                listed.setdefault(unicodedata.normalize("NFC", name), []).append(name)
            self._entries[folder] = listed
        return self._entries[folder]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
