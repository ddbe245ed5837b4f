"""Questions whose images have not been read yet, and their conversion to a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....progress import Progress
from ..manifest import Manifest, ManifestImage, ManifestRow
from .common import ImageColumns, finished, read_images


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question whose images have not been read yet."""

    images: tuple[str, ...]
    """Image names in the data set; empty for a text-only question."""
    row: ManifestRow
    """All columns except those of the images."""
    place: str | None = None
    """Where the question is, such as `row 7 of lab.csv`, for messages about its images."""


def asked_manifest(
    asked: Sequence[Asked], root: Path, source: str, progress: Progress, unasked: Sequence[ManifestRow] = ()
) -> Manifest:
    """Read the images of all questions and make one row per question; skip questions about unreadable images.

    Raises:
        InputError: Images are missing.
    """
    names = [name for question in asked for name in question.images]
    found = read_images(root, names, progress, _places(asked))
    rows = [
        replace(question.row, **_image_columns(question, found.columns))
        for question in asked
        if all(name in found.columns for name in question.images)
    ]
    return finished([*rows, *unasked], root, source, found.unreadable, progress)


def _places(asked: Sequence[Asked]) -> dict[str, str]:
    """For each image name, the first question about it, and how many more there are."""
    places: dict[str, list[str]] = {}
    for question in asked:
        if question.place is not None:
            for name in question.images:
                places.setdefault(name, []).append(question.place)
    return {name: f"{rows[0]} and {len(rows) - 1} more" if rows[1:] else rows[0] for name, rows in places.items()}


def _image_columns(question: Asked, columns: Mapping[str, ImageColumns]) -> dict[str, Any]:
    """The image columns of a row: scalars for the first image, `more_images` for the others."""
    if not question.images:
        return {}
    first, *others = (columns[name] for name in question.images)
    return {**first, "more_images": tuple(_further_image(other) for other in others)}


def _further_image(columns: ImageColumns) -> ManifestImage:
    image, image_hash = columns["image"], columns["image_hash"]
    assert image is not None
    assert image_hash is not None
    return ManifestImage(
        image=image,
        image_hash=image_hash,
        pixel_hash=columns["pixel_hash"],
        width=columns["width"],
        height=columns["height"],
    )
