"""The asset list: for each asset, its folder, and the size and SHA-256 of every file when it was added.

It is one JSON file per user: `~/.medalign/assets.json`, or the file in the environment variable MEDALIGN_ASSETS.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...digests import add_file
from ...errors import InputError
from ...progress import Progress
from ..runs.answer_log import write_whole

VARIABLE = "MEDALIGN_ASSETS"
FORMAT = "medalign-assets"
VERSION = 1
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """The size and digest of a file when it was added."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A folder that was added."""

    folder: Path
    files: dict[str, FileRecord]
    """By path in the folder, with `/` as separator."""

    def changed_size(self) -> str | None:
        """Describe the first file that is missing or has another size; `None` if there is none."""
        for name, record in self.files.items():
            path = self.folder / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != record.bytes:
                return f"{path} has {path.stat().st_size} bytes; it had {record.bytes} bytes when it was added"
        return None


def manifest_path() -> Path:
    """The path of the asset list, which may not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".medalign" / "assets.json"


def read_manifest(path: Path) -> dict[str, Asset]:
    """All assets by name; empty if there is no list.

    Raises:
        InputError: The file is not an asset list of this version.
    """
    if not path.exists():
        return {}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if (saved["format"], saved["version"]) != (FORMAT, VERSION):
            raise InputError(
                f"{path} is {saved['format']} version {saved['version']}; this medalign reads {FORMAT} {VERSION}"
            )
        return {name: _asset(record) for name, record in saved["assets"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an asset list: {type(error).__name__}: {error}") from error


def write_manifest(path: Path, assets: dict[str, Asset]) -> None:
    """Write the list atomically.

    Raises:
        InputError: Its folder cannot be written.
    """
    saved = {name: asdict(asset) | {"folder": str(asset.folder)} for name, asset in sorted(assets.items())}
    content = {"format": FORMAT, "version": VERSION, "assets": saved}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def hash_folder(folder: Path, progress: Progress) -> dict[str, FileRecord]:
    """Size and SHA-256 of every file in a folder, except hidden files.

    Raises:
        InputError: A file cannot be read.
    """
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in inside if not any(part.startswith(".") for part in name.parts)]
    progress.start(f"hashing {folder.name}", sum((folder / name).stat().st_size for name in names) // _MIB)
    return {name.as_posix(): _hash(folder / name, progress) for name in names}


def _hash(path: Path, progress: Progress) -> FileRecord:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = add_file(digest, file, advance=lambda read: progress.advance(read // _MIB))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def _asset(record: dict[str, Any]) -> Asset:
    files = {name: FileRecord(**file) for name, file in record["files"].items()}
    return Asset(folder=Path(record["folder"]), files=files)
