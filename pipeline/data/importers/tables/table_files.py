"""Find the files of a table: one file, an image folder with metadata, or Parquet files from the Hugging Face Hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from .....errors import InputError
from ..image_folders.embedded_images import parquet_files
from ..splits import SPLIT_NAMES, split_name

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Metadata of Hugging Face image folders: beside the images, or in one folder per split."""
PARQUET_PATTERNS = ("data/*.parquet", "*-of-*.parquet", "*/????.parquet", "*/*/????.parquet")
"""Files of a Hugging Face Hub data set: of a clone, and of its converted branch (`default/train/0000`)."""
_SHARD = re.compile(r"^(?P<split>.+?)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_SPLIT_ORDER = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One file of a table, and what its path implies."""

    path: Path
    split: str | None
    """Split of all its rows, from the name of the file or its folder; `None` if neither is a split name."""
    folder: str = ""
    """Folder that its image names are relative to, below the image root."""


def table_files(src: Path) -> list[TableFile]:
    """The files of a table.

    Raises:
        InputError: There is none, its kind is unknown, or a part of a Parquet table is missing.
    """
    if src.is_file():
        if src.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(
                f"{src} is not a table: expected {', '.join(TABLE_SUFFIXES)}; save a spreadsheet as CSV UTF-8"
            )
        return [TableFile(path=src, split=file_split(src))]
    places = [path for name in METADATA_NAMES for path in (*src.glob(name), *src.glob(f"*/{name}"))]
    if places:
        return [
            TableFile(path=path, split=_known_split(path.parent.name), folder=_relative(path.parent, src))
            for path in sorted(places)
        ]
    return hub_files(src)


def hub_files(src: Path) -> list[TableFile]:
    """The Parquet files of a local copy of a Hugging Face Hub data set.

    Raises:
        InputError: There are none, or parts of a split are missing.
    """
    files = parquet_files(src, PARQUET_PATTERNS)
    if not files:
        raise InputError(f"{src} has no table: looked for {', '.join((*METADATA_NAMES, *PARQUET_PATTERNS))}")
    parts: dict[tuple[str, int], set[int]] = {}
    for found in (_SHARD.match(path.name) for path in files if not src.is_file()):
        if found is not None:
            parts.setdefault((found["split"], int(found["parts"])), set()).add(int(found["part"]))
    gaps = [f"{split}: {len(there)} of {count}" for (split, count), there in parts.items() if len(there) != count]
    if gaps:
        raise InputError(
            f"{files[0].parent} has only some Parquet files of a split ({'; '.join(gaps)}): download the rest"
        )
    tables = [TableFile(path=path, split=file_split(path)) for path in files]
    return sorted(tables, key=lambda file: (_SPLIT_ORDER.index(file.split) if file.split else -1, file.path))


def file_split(path: Path) -> str | None:
    """`train` of train.csv, train-00000-of-00001.parquet and train/0000.parquet."""
    found = _SHARD.match(path.name)
    return _known_split(found["split"] if found else path.stem) or _known_split(path.parent.name)


def _known_split(name: str) -> str | None:
    return split_name(name) if name.strip().casefold() in SPLIT_NAMES else None


def _relative(folder: Path, src: Path) -> str:
    name = folder.relative_to(src).as_posix()
    return "" if name == "." else name
