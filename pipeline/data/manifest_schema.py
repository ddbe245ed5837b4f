"""The schema of a manifest: columns and their types, one typed row, and the rules that a table must follow."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from ...choices import DataUse
from ...plain_text import counted
from .manifest_images import (
    IMAGE_FIELDS,
    MORE_IMAGES,
    MORE_IMAGES_COLUMN,
    ManifestImage,
    contradicted_names,
    more_images_rules,
)
from .regions import REGION_COLUMN, REGIONS, Region, region_rules

AnswerType = Literal["open", "closed", "choice", "report"]

_HASH_PATTERN = "^[0-9a-f]{64}$"
_UNSAFE_PATH_PATTERN = r"^/|\\|^[A-Za-z]:|(^|/)\.\.(/|$)"

MASK_HASHES_COLUMN = "mask_hashes"
MASK_HASHES = pl.List(pl.Struct({"mask": pl.String(), "mask_hash": pl.String()}))
"""SHA-256 of each mask file in a row's regions; `[]` if none were hashed."""

SCHEMA = pl.Schema(
    {
        **IMAGE_FIELDS,
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
        MORE_IMAGES_COLUMN: MORE_IMAGES,
        MASK_HASHES_COLUMN: MASK_HASHES,
    }
)
"""Columns in order; docs/manifests.md describes each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier question of the same conversation and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class MaskHash:
    """A mask file and the SHA-256 of its bytes."""

    mask: str
    mask_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRow:
    """One row of a manifest; the fields are its columns, in their order."""

    image: str | None = None
    """Posix path relative to the manifest's root; `None` for a text-only question."""
    image_hash: str | None = None
    pixel_hash: str | None = None
    """`None` if the file cannot be decoded."""
    width: int | None = None
    """Pixels of the upright decoded image."""
    height: int | None = None
    question_id: str
    """Unique in the manifest."""
    question: str | None = None
    """`None` for an image without a question."""
    answer: str | None = None
    answer_type: AnswerType | None = None
    options: tuple[str, ...] | None = None
    """The options of a multiple-choice question."""
    history: tuple[Turn, ...] = ()
    split: str
    data_use: DataUse
    question_type: str | None = None
    modality: str | None = None
    organ: str | None = None
    regions: tuple[Region, ...] = ()
    """Annotated parts of the first image."""
    more_images: tuple[ManifestImage, ...] = ()
    """Further images of the same question; a student sees them after the first, in this order."""
    mask_hashes: tuple[MaskHash, ...] = ()
    """Of the files of `regions`; `data import` fills it in."""


def is_image_name(name: str) -> bool:
    """Whether the `image` column can contain this path relative to the root."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    return re.search(_UNSAFE_PATH_PATTERN, name) is None


def manifest_problems(frame: pl.DataFrame) -> list[str]:
    """All violations of the schema, one line each; empty for a valid table.

    Extra columns are allowed. Values are checked only if all columns have the right types.
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
        f"data_use is not one of {', '.join(allowed_uses)}": ~pl.col("data_use").is_in(allowed_uses).fill_null(False),
        f"answer_type is not one of {', '.join(allowed_types)}": ~pl.col("answer_type").is_in(allowed_types),
        "image and image_hash must both be set or both be null": image.is_null() != image_hash.is_null(),
        "image is not a POSIX path inside the root": image.str.contains(_UNSAFE_PATH_PATTERN),
        "image_hash is not 64 hex digits": ~image_hash.str.contains(_HASH_PATTERN),
        "neither an image nor a question": image.is_null() & pl.col("question").is_null(),
        "history is null": pl.col("history").is_null(),
        "a choice question without options": (pl.col("answer_type") == "choice")
        & (pl.col("options").list.len().fill_null(0) == 0),
        **region_rules(_UNSAFE_PATH_PATTERN),
        **more_images_rules(_UNSAFE_PATH_PATTERN, _HASH_PATTERN),
        "mask_hashes is null": pl.col(MASK_HASHES_COLUMN).is_null(),
    }
    marks = frame.select(
        broken.fill_null(False).alias(rule) for rule, broken in rules.items()
    )  # one pass over the rows
    found = {rule: frame["question_id"].filter(marks[rule]) for rule in rules if marks[rule].any()}
    found["one image name with more than one image_hash"] = contradicted_names(frame)
    found["one mask with more than one mask_hash"] = _contradicted_masks(frame)
    return [
        f"{rule}: {counted(len(ids), 'row')}, "
        f"first question_id {', '.join(map(str, ids.unique(maintain_order=True).head(3)))}"
        for rule, ids in found.items()
        if len(ids)
    ]


def _contradicted_masks(frame: pl.DataFrame) -> pl.Series:
    """The `question_id` of rows with a mask that has another hash elsewhere in the manifest."""
    has_any = frame.filter(pl.col(MASK_HASHES_COLUMN).list.len() > 0).select("question_id", MASK_HASHES_COLUMN)
    if has_any.is_empty():
        return has_any["question_id"]
    pairs = has_any.explode(MASK_HASHES_COLUMN).unnest(MASK_HASHES_COLUMN)
    return pairs.filter(pl.col("mask_hash").n_unique().over("mask") > 1)["question_id"]


def with_added_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the list columns that manifests of earlier versions lack, empty in every row."""
    added = {REGION_COLUMN: REGIONS, MORE_IMAGES_COLUMN: MORE_IMAGES, MASK_HASHES_COLUMN: MASK_HASHES}
    lacking = {name: dtype for name, dtype in added.items() if name not in frame.columns}
    frame = frame.with_columns(pl.lit([], dtype=dtype).alias(name) for name, dtype in lacking.items())
    known = [name for name in SCHEMA if name in frame.columns]
    return frame.select(*known, pl.exclude(known)) if lacking else frame
