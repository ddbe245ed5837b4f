"""Questions before their images are read, and the one way from them to a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from ..manifest import Manifest, ManifestRow
from .common import finished, read_images, shortened


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
        InputError: images are missing, or questions have several images.
    """
    _refuse_several(asked)
    found = read_images(root, [name for question in asked for name in question.images], progress)
    rows = [
        replace(question.row, **(found.columns[question.images[0]] if question.images else {}))
        for question in asked
        if all(name in found.columns for name in question.images)
    ]
    return finished([*rows, *unasked], root, source, found.unreadable, progress)


def _refuse_several(asked: Sequence[Asked]) -> None:
    """The one place that refuses several images a question, which manifests cannot hold yet.

    Raises:
        InputError: a question has more than one.
    """
    several = [question.row.question_id for question in asked if len(question.images) > 1]
    if several:
        raise InputError(
            f"{len(several)} of {len(asked)} questions are about several images, and a manifest holds one image a "
            f"question; {shortened(several)}. Leave these questions out of the file"
        )
