"""Manifest rows as samples for a student."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import polars as pl

from ...errors import InputError
from ...plain_text import counted
from ...student.inputs.collation import Sample, SampleImage
from ...student.metrics.answer_words import contains_phrase, strict_words
from .image_hashing import require_files
from .manifest import Manifest
from .manifest_images import MORE_IMAGES_COLUMN


def manifest_samples(manifest: Manifest) -> list[Sample]:
    """One sample per row with a question, in order.

    Raises:
        InputError: An image could not be decoded when the manifest was made: it has no pixel hash.
    """
    require_decodable(manifest)
    return [_sample(manifest, row) for row in manifest.questions.iter_rows(named=True)]


def answered_samples(manifest: Manifest) -> list[Sample]:
    """The samples for training: only questions with a reference answer.

    Raises:
        InputError: As of `manifest_samples`.
    """
    known = manifest.frame.filter(pl.col("answer").str.strip_chars().fill_null("") != "")
    return manifest_samples(Manifest(known, manifest.root, manifest.source))


def _sample(manifest: Manifest, row: dict[str, Any]) -> Sample:
    return Sample(
        question_id=row["question_id"],
        question=with_options(row["question"], row["options"] or ()),
        answer=row["answer"] or "",
        images=tuple(
            SampleImage(
                path=manifest.path_of(image["image"]), image_hash=image["image_hash"], pixel_hash=image["pixel_hash"]
            )
            for image in _shown(row)
        ),
        history=tuple((turn["question"], turn["answer"]) for turn in row["history"]),
    )


def require_images(manifest: Manifest) -> None:
    """Check that every image of a manifest is there, and that those of questions could be decoded when it was made.

    Raises:
        InputError: Some are missing, or could not.
    """
    require_files([manifest.path_of(image) for image in manifest.image_files()["image"]])
    require_decodable(manifest)


def require_decodable(manifest: Manifest) -> None:
    """Check that every image of a question could be decoded when the manifest was made, so that it has a pixel hash.

    Raises:
        InputError: Some could not.
    """
    broken = [
        (row["question_id"], image["image"])
        for row in manifest.questions.iter_rows(named=True)
        for image in _shown(row)
        if image["pixel_hash"] is None
    ]
    if broken:
        images = counted(len({image for _, image in broken}), "image")
        question, first = broken[0]
        raise InputError(
            f"{images} in split {', '.join(manifest.splits)} of the {manifest.source} manifest could not be decoded "
            f"when it was made; first: {first}, of question {question!r}. Replace the file or delete its rows, "
            "and make the manifest again; `medalign data check` lists all of them"
        )


def _shown(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of a row, in order."""
    return [] if row["image"] is None else [row, *row[MORE_IMAGES_COLUMN]]


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with its options below, unless it already mentions all of them."""
    asked, offered = strict_words(question), [strict_words(option) for option in options]
    if all(words and contains_phrase(asked, words) for words in offered):
        return question
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines])
