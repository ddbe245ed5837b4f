"""Training sets and images that are drawn for each seed: whole images in random order, the same order for any number.

The order depends on the images' hashes and the seed alone, so a set of 50 labels is part of the set of 200 of the same
seed, and the order of rows in the manifest does not matter.
"""

import hashlib
from pathlib import Path

import polars as pl

from ....errors import InputError
from ...data.manifest import Manifest
from ..study_spec import ImageSource, LabelSource, QuestionSource


def read_questions(manifest: Manifest, source: QuestionSource) -> Manifest:
    """The questions of a source, in the manifest's order; `per_image` chooses by hash, the same for every seed.

    Raises:
        InputError: The split does not exist, or has no such question.
    """
    frame = _questions(manifest, source)
    if source.per_image is not None:
        chosen = _first_of_each_image(_shuffled(frame, "question_id", 0), source.per_image)
        frame = frame.filter(pl.col("question_id").is_in(chosen["question_id"].implode()))
    if source.limit is not None:
        frame = frame.head(source.limit)
    return Manifest(frame, manifest.root, manifest.source)


def draw_labels(manifest: Manifest, source: LabelSource, seed: int) -> Manifest:
    """The training set of one seed: images in random order, up to `per_image` questions of each, `labels` in all.

    Raises:
        InputError: The split does not exist, or has fewer questions with an answer than labels.
    """
    frame = _questions(manifest, source)
    if source.limit is not None:
        frame = frame.head(source.limit)
    frame = frame.filter(pl.col("answer").is_not_null())
    if source.labels is not None or source.per_image is not None:
        frame = _shuffled(frame, "question_id", seed)
    if source.per_image is not None:
        frame = _first_of_each_image(frame, source.per_image)
    if source.labels is not None and frame.height < source.labels:
        raise InputError(
            f"{source.manifest} has {frame.height} questions with an answer in split {source.split}"
            f"{'' if source.per_image is None else f' (at most {source.per_image} about one image)'}, fewer than "
            f"train.labels {source.labels}"
        )
    return Manifest(frame.head(source.labels) if source.labels is not None else frame, manifest.root, manifest.source)


def _questions(manifest: Manifest, source: QuestionSource) -> pl.DataFrame:
    """The questions of a split with these types of answers."""
    frame = manifest.questions.filter(pl.col("split") == source.split)
    if frame.is_empty():
        frame = manifest.split(source.split).questions  # which names the splits that there are
    if source.answer_types is not None:
        frame = frame.filter(pl.col("answer_type").is_in(source.answer_types))
    if frame.is_empty():
        types = "" if source.answer_types is None else f" whose answer is {' or '.join(source.answer_types)}"
        raise InputError(f"{source.manifest} has no question in split {source.split}{types}")
    return frame


def _first_of_each_image(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """The first rows of each image; a question without an image is by itself."""
    image = pl.col("image_hash").fill_null(pl.col("question_id"))
    return frame.filter(pl.int_range(pl.len()).over(image) < number)


def draw_images(manifest: Manifest, source: ImageSource, seed: int) -> Manifest:
    """The images of one seed, each in the first row that has it.

    Raises:
        InputError: The split does not exist, or there are fewer images.
    """
    frame = manifest.frame if source.split is None else manifest.frame.filter(pl.col("split") == source.split)
    if frame.is_empty():
        frame = manifest.split(str(source.split)).frame  # which names the splits that there are
    frame = frame.filter(pl.col("image_hash").is_not_null())
    frame = frame.unique(subset="image_hash", keep="first", maintain_order=True)
    if source.images is not None:
        if frame.height < source.images:
            raise InputError(f"{source.manifest} has {frame.height} images, fewer than images {source.images}")
        frame = _shuffled(frame, "image_hash", seed).head(source.images)
    return Manifest(frame, manifest.root, manifest.source)


def digest_rows(manifest: Manifest) -> str:
    """SHA-256 of all rows, with questions, answers, image hashes and regions."""
    return hashlib.sha256(manifest.frame.write_ndjson().encode()).hexdigest()


def save_draw(manifest: Manifest, folder: Path) -> Path:
    """Write a drawn manifest under the digest of its rows, unless it is there; return its path."""
    path = folder / f"{digest_rows(manifest)[:16]}.parquet"
    if not path.is_file():
        manifest.write(path)
    return path


def _shuffled(frame: pl.DataFrame, within: str, seed: int) -> pl.DataFrame:
    """Rows image by image, images and the rows of each in an order that depends on hashes and the seed alone."""

    def rank(text: str | None) -> str:
        return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()

    images = pl.col("image_hash").fill_null(pl.col("question_id"))
    return (
        frame.with_columns(
            images.map_elements(rank, return_dtype=pl.String).alias("_image"),
            pl.col(within).map_elements(rank, return_dtype=pl.String).alias("_row"),
        )
        .sort("_image", "_row")
        .drop("_image", "_row")
    )
