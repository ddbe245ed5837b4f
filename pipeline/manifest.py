"""Manifests: one Parquet table that says which images and questions a run is about (docs/manifests.md).

One row is one question to be answered (or one image without a question). Images are named relative to a root
folder and joined to teacher stores by their hash, never by their name.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl
from polars.exceptions import PolarsError

from ..errors import InputError
from .regions import REGION_COLUMN, REGIONS, Region, region_rules

MANIFEST_VERSION = 1
FORMAT = "medalign-manifest"
METADATA_KEY = "medalign"

AnswerType = Literal["open", "closed", "choice", "report"]
DataUse = Literal["public", "credentialed", "private"]

_HASH_PATTERN = "^[0-9a-f]{64}$"
_UNSAFE_PATH_PATTERN = r"^/|\\|^[A-Za-z]:|(^|/)\.\.(/|$)"

SCHEMA = pl.Schema(
    {
        "image": pl.String(),
        "image_hash": pl.String(),
        "pixel_hash": pl.String(),
        "width": pl.Int32(),
        "height": pl.Int32(),
        "question_id": pl.String(),
        "question": pl.String(),
        "answer": pl.String(),
        "answer_type": pl.String(),
        "options": pl.List(pl.String()),
        "history": pl.List(pl.Struct({"question": pl.String(), "answer": pl.String()})),
        "split": pl.String(),
        "data_use": pl.String(),
        "question_type": pl.String(),
        "modality": pl.String(),
        "organ": pl.String(),
        REGION_COLUMN: REGIONS,
    }
)
"""Columns in their order; every column is explained in docs/manifests.md."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier question of the same conversation and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRow:
    """One row of a manifest; the fields are its columns, in their order."""

    image: str | None = None
    """Posix path relative to the manifest's root; `None` for a text-only question."""
    image_hash: str | None = None
    pixel_hash: str | None = None
    """`None` where the file cannot be decoded."""
    width: int | None = None
    """Pixels of the upright decoded image."""
    height: int | None = None
    question_id: str
    """Unique in the manifest."""
    question: str | None = None
    """`None` for an image that nothing is asked about."""
    answer: str | None = None
    answer_type: AnswerType | None = None
    options: tuple[str, ...] | None = None
    """What a multiple-choice question offers."""
    history: tuple[Turn, ...] = ()
    split: str
    data_use: DataUse
    question_type: str | None = None
    modality: str | None = None
    organ: str | None = None
    regions: tuple[Region, ...] = ()
    """Annotated parts of the image."""


@dataclass(frozen=True)
class Manifest:
    """A table of images and questions and the folder that its image paths start from.

    Raises:
        InputError: the table breaks the schema; the message lists every problem.
    """

    frame: pl.DataFrame
    root: Path
    source: str
    """Where the rows came from, for people: `vqa-rad`, `phantoms seed=1`."""
    unreadable: tuple[str, ...] = ()
    """Why image files that were found have no row, one line each without a name: they could not even be hashed."""

    def __post_init__(self) -> None:
        problems = manifest_problems(self.frame)
        if problems:
            raise InputError(_listed(f"the {self.source} manifest does not follow docs/manifests.md", problems))

    @classmethod
    def from_rows(
        cls, rows: Iterable[ManifestRow], root: Path, source: str, unreadable: tuple[str, ...] = ()
    ) -> "Manifest":
        """Build a manifest from typed rows, in their order."""
        records = [asdict(row) for row in rows]
        return cls(pl.DataFrame(records, schema=SCHEMA), root, source, unreadable)

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> "Manifest":
        """Read a manifest; `root` replaces the recorded image root (for images that were moved).

        Raises:
            InputError: no such file, not a manifest, one of a newer version, or one that breaks the schema.
        """
        header = _read_header(path)
        frame = _with_regions(pl.read_parquet(path, glob=False))
        problems = manifest_problems(frame)
        if problems:
            raise InputError(_listed(f"{path} does not follow docs/manifests.md", problems))
        recorded = Path(os.path.normpath(path.parent / str(header.get("root", "."))))
        unreadable = header.get("unreadable", [])
        reasons = tuple(map(str, unreadable)) if isinstance(unreadable, list) else ()
        return cls(frame, root or recorded, str(header.get("source", "unknown")), reasons)

    def write(self, path: Path) -> None:
        """Write the manifest as one Parquet file, replacing `path` in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            "format": FORMAT,
            "version": MANIFEST_VERSION,
            "source": self.source,
            "root": Path(os.path.relpath(self.root.resolve(), path.parent.resolve())).as_posix(),
            "unreadable": list(self.unreadable),
        }
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            self.frame.write_parquet(partial, metadata={METADATA_KEY: json.dumps(header)})
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)

    def __len__(self) -> int:
        return self.frame.height

    def images(self) -> pl.DataFrame:
        """One row per distinct image_hash, first seen first: image, image_hash, pixel_hash, width, height."""
        columns = ["image", "image_hash", "pixel_hash", "width", "height"]
        present = self.frame.select(columns).filter(pl.col("image_hash").is_not_null())
        return present.unique(subset="image_hash", keep="first", maintain_order=True)

    @property
    def questions(self) -> pl.DataFrame:
        """The rows that ask something, in their order."""
        return self.frame.filter(pl.col("question").is_not_null())

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split, in first-seen order."""
        counts = self.frame.group_by("split", maintain_order=True).len()
        return dict(zip(counts["split"].to_list(), counts["len"].to_list(), strict=True))

    def split(self, name: str) -> "Manifest":
        """The rows of one split.

        Raises:
            InputError: no row belongs to it; the message names the splits that exist.
        """
        rows = self.frame.filter(pl.col("split") == name)
        if rows.is_empty():
            existing = ", ".join(f"{split} ({count} rows)" for split, count in self.splits.items()) or "none"
            raise InputError(f"the {self.source} manifest has no split {name!r}; its splits: {existing}")
        return Manifest(rows, self.root, self.source)

    def path_of(self, image: str) -> Path:
        """Where an entry of the `image` column lies."""
        return self.root / image


def is_image_name(name: str) -> bool:
    """Whether a file's path relative to the root can stand in the `image` column."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    return re.search(_UNSAFE_PATH_PATTERN, name) is None


def manifest_problems(frame: pl.DataFrame) -> list[str]:
    """Everything in which a table breaks the schema, one line each; an empty list for a good one.

    Columns beyond the schema are allowed. Values are looked at once all columns have the right types.
    """
    problems = [f"column {name} is missing" for name in SCHEMA if name not in frame.columns]
    problems += [
        f"column {name} is {frame.schema[name]}, not {dtype}"
        for name, dtype in SCHEMA.items()
        if name in frame.columns and frame.schema[name] != dtype
    ]
    return problems or _value_problems(frame)


def _value_problems(frame: pl.DataFrame) -> list[str]:
    image, image_hash = pl.col("image"), pl.col("image_hash")
    allowed_types, allowed_uses = get_args(AnswerType), get_args(DataUse)
    rules = {
        "question_id is null": pl.col("question_id").is_null(),
        "question_id is not unique": pl.col("question_id").is_duplicated() & pl.col("question_id").is_not_null(),
        "split is null or empty": pl.col("split").fill_null("") == "",
        f"data_use is none of {', '.join(allowed_uses)}": ~pl.col("data_use").is_in(allowed_uses).fill_null(False),
        f"answer_type is none of {', '.join(allowed_types)}": ~pl.col("answer_type").is_in(allowed_types),
        "image and image_hash must both be there or both be null": image.is_null() != image_hash.is_null(),
        "image is not a posix path inside the root": image.str.contains(_UNSAFE_PATH_PATTERN),
        "image_hash is not 64 hex digits": ~image_hash.str.contains(_HASH_PATTERN),
        "neither an image nor a question": image.is_null() & pl.col("question").is_null(),
        "history is null": pl.col("history").is_null(),
        "a choice question without options": (pl.col("answer_type") == "choice")
        & (pl.col("options").list.len().fill_null(0) == 0),
        **region_rules(_UNSAFE_PATH_PATTERN),
    }
    problems = []
    for rule, broken in rules.items():
        ids = frame.filter(broken.fill_null(False))["question_id"]
        if len(ids):
            first = ids.unique(maintain_order=True).head(3).to_list()
            problems.append(f"{rule}: {len(ids)} rows, first question_id {', '.join(map(str, first))}")
    return problems


def _with_regions(frame: pl.DataFrame) -> pl.DataFrame:
    """A table with the column `regions`, which manifests written before it was there lack."""
    if REGION_COLUMN in frame.columns:
        return frame
    return frame.with_columns(pl.lit([], dtype=REGIONS).alias(REGION_COLUMN))


def _read_header(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise InputError(f"no manifest at {path}; make one with `medalign data import NAME SRC --out {path}`")
    try:
        metadata = pl.read_parquet_metadata(path)
    except PolarsError as error:
        raise InputError(f"{path} is not a Parquet file: {error}") from error
    try:
        header = json.loads(metadata.get(METADATA_KEY, "null"))
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path} is a Parquet file, but not a medalign manifest; make one with `medalign data import`")
    version = header.get("version")
    if not isinstance(version, int) or version > MANIFEST_VERSION:
        raise InputError(
            f"{path} is a manifest of version {version}; this medalign reads up to {MANIFEST_VERSION}: "
            "update it with `pip install -U medalign`"
        )
    return header


def _listed(head: str, problems: list[str]) -> str:
    return "\n".join([f"{head}:", *(f"  - {problem}" for problem in problems)])
