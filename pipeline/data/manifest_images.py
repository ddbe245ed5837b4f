"""The images of a manifest's rows: the first in its own columns, further ones in `more_images` (docs/manifests.md).

All code gets a manifest's images from here, so that further images are never forgotten.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

MORE_IMAGES_COLUMN = "more_images"
IMAGE_FIELDS = pl.Schema(
    {
        "image": pl.String(),
        "image_hash": pl.String(),
        "pixel_hash": pl.String(),
        "width": pl.Int32(),
        "height": pl.Int32(),
    }
)
"""Columns of a row's first image, and the fields of every further one."""
MORE_IMAGES = pl.List(pl.Struct(IMAGE_FIELDS))
"""Type of the column; `[]` if a question has at most one image."""

IMAGE_HASHES = pl.concat_list(
    pl.concat_list("image_hash").list.drop_nulls(),
    pl.col(MORE_IMAGES_COLUMN).list.eval(pl.element().struct.field("image_hash")),
)
"""The hashes of all images of a row, first to last; `[]` for a text-only row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestImage:
    """One further image of a row; the fields are those of `ManifestRow` for the first one."""

    image: str
    """Posix path relative to the manifest's root."""
    image_hash: str
    pixel_hash: str | None = None
    """`None` if the file cannot be decoded."""
    width: int | None = None
    """Pixels of the upright decoded image."""
    height: int | None = None


def every_image(frame: pl.DataFrame, keep: Sequence[str] = ()) -> pl.DataFrame:
    """One row per image of each manifest row, in order: the columns `keep`, `IMAGE_FIELDS`, then `row`.

    `row` is the index of the manifest row, from 0. An image of several rows is listed several times.
    """
    numbered = frame.with_row_index("row")
    columns = [*keep, *IMAGE_FIELDS, "row"]
    first = numbered.filter(pl.col("image_hash").is_not_null()).select(columns)
    has_more = numbered.filter(pl.col(MORE_IMAGES_COLUMN).list.len() > 0)
    more = has_more.select(*keep, "row", MORE_IMAGES_COLUMN).explode(MORE_IMAGES_COLUMN).unnest(MORE_IMAGES_COLUMN)
    return pl.concat([first, more.select(columns)]).sort("row", maintain_order=True)


def image_groups(images: Iterable[Sequence[str]]) -> list[str | None]:
    """Group questions, given by the hashes of their images; returns one group name each, `None` without images.

    Groups are connected components: questions that share an image are in one group, so different groups have no image
    in common. The name is the smallest image hash in the group.
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]  # halves the path
            name = above
        return name

    questions = [list(hashes) for hashes in images]
    for hashes in questions:
        for other in hashes[1:]:
            one, two = sorted((find(hashes[0]), find(other)))
            parent[two] = one
    return [find(hashes[0]) if hashes else None for hashes in questions]


def question_groups(images: Iterable[Sequence[str]], question_ids: Iterable[str]) -> list[str]:
    """The image, or group of shared images, of each question; a question without an image is a group of its own."""
    groups = image_groups(images)
    return [group or f"question {name}" for group, name in zip(groups, question_ids, strict=True)]


def more_images_rules(unsafe_path: str, hash_pattern: str) -> dict[str, pl.Expr]:
    """Rules that a row's further images must not break: message -> expression over the column."""

    def some(broken: pl.Expr) -> pl.Expr:
        return pl.col(MORE_IMAGES_COLUMN).list.eval(broken.fill_null(False)).list.any()

    image, image_hash = (pl.element().struct.field(name) for name in ("image", "image_hash"))
    return {
        "more_images is null": pl.col(MORE_IMAGES_COLUMN).is_null(),
        "more_images without an image": (pl.col(MORE_IMAGES_COLUMN).list.len() > 0) & pl.col("image").is_null(),
        "an entry of more_images has no image or no image_hash": some(image.is_null() | image_hash.is_null()),
        "an image of more_images is not a POSIX path inside the root": some(image.str.contains(unsafe_path)),
        "an image_hash of more_images is not 64 hex digits": some(~image_hash.str.contains(hash_pattern)),
    }


def contradicted_names(frame: pl.DataFrame) -> pl.Series:
    """The `question_id` of rows with an image name that has another image_hash elsewhere in the manifest."""
    every = every_image(frame, ["question_id"]).drop_nulls(["image", "image_hash"])
    return every.filter(pl.col("image_hash").n_unique().over("image") > 1)["question_id"]
