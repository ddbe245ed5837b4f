"""Manifests: a Parquet table that lists the images and questions of a run (docs/manifests.md).

Each row is one question (or one image without a question). Images are named relative to a root folder and joined to
teacher stores by their hash, never by their name.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl

from ...choices import DataUse
from ...errors import InputError
from ...file_kinds import kind_of
from ...path_checks import path_text
from ...plain_text import as_typed, counted
from ...suggestions import did_you_mean, from_here, respelled
from ...teacher_cache.sharing.data_use_gate import strictest
from . import saved_tables
from .manifest_images import IMAGE_FIELDS, MORE_IMAGES_COLUMN, ManifestImage, every_image
from .manifest_schema import SCHEMA, AnswerType, ManifestRow, Turn, is_image_name, manifest_problems, with_added_columns

__all__ = [
    "MANIFEST_VERSION",
    "SCHEMA",
    "AnswerType",
    "DataUse",
    "Manifest",
    "ManifestImage",
    "ManifestRow",
    "Turn",
    "is_image_name",
    "manifest_problems",
]

MANIFEST_VERSION = 2
"""2: questions may have further images. A manifest without them is written as version 1, for older readers."""
FORMAT = "medalign-manifest"
_AGAIN: Final = "Copy it again, or run `medalign data import` again"


class _InvalidRows(InputError):
    """Rows that violate the schema."""

    def __init__(self, what: str, problems: list[str]) -> None:
        listed = (f"  - {problem}" for problem in problems)
        super().__init__("\n".join([f"{what} does not follow docs/manifests.md:", *listed]))
        self.problems = problems


def _other_manifest(path: Path) -> str:
    """Which manifest to pass instead of one that does not exist, or how to create it."""
    parquet = path.with_suffix(".parquet") if path.suffix else path
    near = parquet if parquet.is_file() else respelled(path, _looks_like_manifest)
    if near is not None:
        return did_you_mean([str(near)])
    return f"{from_here(path)}; create it with `medalign data import NAME SRC --out {as_typed(parquet)}`"


def _looks_like_manifest(path: Path) -> bool:
    return path.suffix == ".parquet" and path.is_file()


@dataclass(frozen=True)
class Manifest:
    """A table of images and questions, and the folder that its image paths are relative to.

    Raises:
        InputError: The table violates the schema; the message lists every problem.
    """

    frame: pl.DataFrame
    root: Path
    source: str
    """The origin of the rows, for display: `vqa-rad`, `phantoms seed=1`."""
    unreadable: tuple[str, ...] = ()
    """Why image files have no row because they could not be read: one line per file, without its name."""

    def __post_init__(self) -> None:
        problems = manifest_problems(self.frame)
        if problems:
            raise _InvalidRows(f"the {self.source} manifest", problems)

    @classmethod
    def from_rows(
        cls, rows: Iterable[ManifestRow], root: Path, source: str, unreadable: tuple[str, ...] = ()
    ) -> "Manifest":
        """Build a manifest from typed rows, in their order."""
        records = [asdict(row) for row in rows]
        return cls(pl.DataFrame(records, schema=SCHEMA), root, source, unreadable)

    @classmethod
    def read(cls, path: str | Path, root: str | Path | None = None) -> "Manifest":
        """Read a manifest; `root` replaces the recorded image root (for images that were moved).

        Raises:
            SettingsError: `path` is not a path, or is empty.
            InputError: The file does not exist, is not a manifest, has a newer version, or violates the schema.
        """
        path = Path(path_text("the manifest", path))
        if path.exists() and not path.is_file():
            inside = sorted({*path.glob("*manifest*.parquet"), *path.glob("*/*manifest*.parquet")})[:1]
            such = f", such as {inside[0]}" if inside else ""
            raise InputError(f"{path} is {kind_of(path.stat().st_mode)}, not a manifest: pass the Parquet file{such}")
        if not path.is_file():
            raise InputError(f"{path} does not exist{_other_manifest(path)}")
        saved = saved_tables.read(path, _AGAIN)
        header = _parse_header(saved.header, path)
        frame = with_added_columns(saved.rows)
        recorded = Path(os.path.normpath(path.parent / str(header.get("root", "."))))
        unreadable = header.get("unreadable", [])
        reasons = tuple(map(str, unreadable)) if isinstance(unreadable, list) else ()
        try:
            return cls(frame, recorded if root is None else Path(root), str(header.get("source", "unknown")), reasons)
        except _InvalidRows as error:
            raise _InvalidRows(str(path), error.problems) from None

    def write(self, path: str | Path) -> None:
        """Write the manifest as one Parquet file, replacing `path` atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            "format": FORMAT,
            "version": MANIFEST_VERSION if self.has_several_images else 1,
            "source": self.source,
            "root": Path(os.path.relpath(self.root.resolve(), path.parent.resolve())).as_posix(),
            "unreadable": list(self.unreadable),
        }
        saved_tables.write(path, self.frame, header)

    def __len__(self) -> int:
        return self.frame.height

    def images(self) -> pl.DataFrame:
        """One row per distinct image_hash, in order of appearance: image, image_hash, pixel_hash, width, height."""
        return self._every_image().unique(subset="image_hash", keep="first", maintain_order=True)

    def image_files(self) -> pl.DataFrame:
        """The same with one row per distinct image name, so files with equal bytes are all listed."""
        return self._every_image().unique(subset="image", keep="first", maintain_order=True)

    def _every_image(self) -> pl.DataFrame:
        return every_image(self.frame).select(IMAGE_FIELDS.names())

    @property
    def has_several_images(self) -> bool:
        """Whether any row has more than one image."""
        return bool((self.frame[MORE_IMAGES_COLUMN].list.len() > 0).any())

    @property
    def data_use(self) -> DataUse:
        """The strictest data-use class of all rows; `public` without rows, which restrict nothing."""
        return strictest(["public", *self.frame["data_use"].unique().to_list()])

    @property
    def questions(self) -> pl.DataFrame:
        """The rows with a question, in order."""
        return self.frame.filter(pl.col("question").is_not_null())

    @property
    def splits(self) -> dict[str, int]:
        """Number of rows per split, in order of appearance."""
        counts = self.frame.group_by("split", maintain_order=True).len()
        return dict(zip(counts["split"].to_list(), counts["len"].to_list(), strict=True))

    def split(self, name: str) -> "Manifest":
        """The rows of one split.

        Raises:
            InputError: There is no such split; the message lists the existing ones.
        """
        rows = self.frame.filter(pl.col("split") == name)
        if rows.is_empty():
            existing = ", ".join(f"{split} ({counted(count, 'row')})" for split, count in self.splits.items()) or "none"
            raise InputError(
                f"the {self.source} manifest has no split {name!r}; its splits: {existing}. Choose one of "
                "them, or another manifest"
            )
        return Manifest(rows, self.root, self.source)

    def path_of(self, image: str) -> Path:
        """The path of an entry of the `image` column."""
        return self.root / image


def _parse_header(text: str | None, path: Path) -> dict[str, object]:
    try:
        header = json.loads(text or "null")
    except (json.JSONDecodeError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(
            f"{path} is a Parquet file but not a medalign manifest; create one with `medalign data import`"
        )
    version = header.get("version")
    if not isinstance(version, int) or version > MANIFEST_VERSION:
        raise InputError(
            f"{path} has manifest version {version}, but this medalign reads only up to {MANIFEST_VERSION}; "
            "update medalign with `pip install -U medalign`"
        )
    return header
