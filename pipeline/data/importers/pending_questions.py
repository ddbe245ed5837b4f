"""Questions before their images are read, and the one way from them to a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....progress import Progress
from ..manifest import Manifest, ManifestImage, ManifestRow
from .common import ImageColumns, finished, read_images


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One question before its images are read."""

    images: tuple[str, ...]
    """Names as the data set has them; empty for a text-only question."""
    row: ManifestRow
    """Everything but the columns of the image."""


def asked_manifest(
    asked: Sequence[Asked], root: Path, source: str, progress: Progress, unasked: Sequence[ManifestRow] = ()
) -> Manifest:
    """Read the images of all questions and make a row of each; a question about an unreadable image gets none.

    Raises:
        InputError: images are missing.
    """
    found = read_images(root, [name for question in asked for name in question.images], progress)
    rows = [
        replace(question.row, **_image_columns(question, found.columns))
        for question in asked
        if all(name in found.columns for name in question.images)
    ]
    return finished([*rows, *unasked], root, source, found.unreadable, progress)


def _image_columns(question: Asked, columns: Mapping[str, ImageColumns]) -> dict[str, Any]:
    """A row's columns of its images: the first one's are scalars, the others follow in `more_images`."""
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
