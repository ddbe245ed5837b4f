"""The files that a table is found in: one file, an image folder with metadata, or the Parquet files of a hub's copy."""

import re
from dataclasses import dataclass
from pathlib import Path

from .....errors import InputError
from ..image_folders.embedded_images import parquet_files
from ..splits import SPLIT_NAMES, split_name

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Of Hugging Face's image folders: beside the images, or in a folder for each split."""
PARQUET_PATTERNS = ("data/*.parquet", "*-of-*.parquet", "*/????.parquet", "*/*/????.parquet")
"""Of a data set of the Hugging Face hub, as it is cloned and as its converted branch has it (`default/train/0000`)."""
_SHARD = re.compile(r"^(?P<split>.+?)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_SPLIT_ORDER = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One file of a table and what its place says."""

    path: Path
    split: str | None
    """Of all its rows, by its name or its folder's; `None` where neither is a split's name."""
    folder: str = ""
    """Of its image names, relative to the image root."""


def table_files(src: Path) -> list[TableFile]:
    """The files of a table.

    Raises:
        InputError: there is none, it is of an unknown kind, or a part of a Parquet table is missing.
    """
    if src.is_file():
        if src.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(
                f"{src} is no table: expected {', '.join(TABLE_SUFFIXES)}; save a spreadsheet as CSV UTF-8"
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
    """The Parquet files of a copy of a data set of the Hugging Face hub.

    Raises:
        InputError: there are none, or a split lacks some of its parts.
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
        raise InputError(f"{files[0].parent} lacks Parquet files of a split ({'; '.join(gaps)}): fetch the rest")
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
