"""The sample of images of an inspection, and the questions about them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from ...errors import InputError
from ...plain_text import counted
from ...student.inputs.collation import Sample, SampleImage
from ..data.annotations.region_questions import regions_named
from ..data.manifest import Manifest
from ..data.manifest_images import MORE_IMAGES_COLUMN
from ..data.regions import read_regions
from ..data.samples import manifest_samples

REQUEST = "Describe the image."
"""Question for image tokens, which do not depend on it; those of the manifest may be long."""
_LAST = {"report": 1}
"""Answer types that are asked only if an image has no other question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedImages:
    """A seeded sample of images, in the manifest's order."""

    images: Manifest
    """One row per image; its question may be null."""
    questions: Manifest
    """All questions about these images that have exactly one image."""
    asked: Manifest
    """At most one question per image, for attention and answers."""
    shown: Manifest
    """The questions of `asked` that have a card in the report."""
    left_out: dict[str, int]
    """Why other images of the split are not in the sample -> their number."""

    @property
    def samples(self) -> list[Sample]:
        """One sample per image, with only this image, a short request, and no earlier turns."""
        rows = self.images.frame.with_columns(
            pl.lit(REQUEST).alias("question"),
            pl.lit(None, dtype=pl.String).alias("answer_type"),  # a choice needs its options
            pl.lit(None, dtype=pl.List(pl.String)).alias("options"),
            pl.lit([], dtype=self.images.frame.schema["history"]).alias("history"),
        )
        return manifest_samples(Manifest(rows, self.images.root, self.images.source))

    @property
    def files(self) -> list[SampleImage]:
        """The image of each row."""
        return [sample.images[0] for sample in self.samples]


def inspected_images(split: Manifest, *, limit: int, shown: int, seed: int) -> InspectedImages:
    """Draw `limit` images of a split, and at most one question about each.

    Questions that name an annotated region of their image come first, then other questions, then reports. Only images
    that are the single image of a row are drawn.

    Raises:
        InputError: The split has no such image.
    """
    single = split.frame.filter(pl.col("image").is_not_null() & (pl.col(MORE_IMAGES_COLUMN).list.len() == 0))
    images = single.unique(subset="image_hash", keep="first", maintain_order=True)
    if images.is_empty():
        raise InputError(
            f"split {', '.join(split.splits)} of the {split.source} manifest has no row with exactly one image: pass "
            "another --split or --manifest"
        )
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(images.height)[:limit])
    chosen = images[drawn.tolist()]
    questions = single.filter(
        pl.col("question").is_not_null() & pl.col("image_hash").is_in(chosen["image_hash"].implode())
    )
    asked = _one_each(questions, generator)
    cards = np.sort(generator.permutation(asked.height)[:shown])
    left_out = Counter({"beyond --limit": images.height - chosen.height})
    left_out["not the only image of a question"] = _images_in_groups(split, images)

    def part(frame: pl.DataFrame) -> Manifest:
        return Manifest(frame, split.root, split.source)

    return InspectedImages(
        images=part(chosen),
        questions=part(questions),
        asked=part(asked),
        shown=part(asked[cards.tolist()]),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def describe_sample(inspected: InspectedImages) -> str:
    """The size of the sample, for the report."""
    rest = ", ".join(f"{count} {reason}" for reason, count in inspected.left_out.items())
    parts = f"{counted(len(inspected.images), 'image')}, {counted(len(inspected.questions), 'question')} about them"
    return f"{parts} (left out: {rest})" if rest else parts


def _one_each(questions: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    """One question per image: a random one of those that rank first."""
    cells = questions.select("question", "answer", "answer_type", "regions").iter_rows()
    ranks = [
        _LAST.get(kind or "", 0) * 2 + (not regions_named(question, answer, read_regions(cell)))
        for question, answer, kind, cell in cells
    ]
    ranked = questions.with_row_index("order").with_columns(
        pl.Series("rank", ranks, dtype=pl.Int64), pl.Series("draw", generator.permutation(questions.height))
    )
    first = ranked.sort("rank", "draw").unique(subset="image_hash", keep="first", maintain_order=True)
    return first.sort("order").select(questions.columns)


def _images_in_groups(split: Manifest, images: pl.DataFrame) -> int:
    """Number of images that occur only in rows with several images."""
    every = set(split.images()["image_hash"].to_list())
    return len(every - set(images["image_hash"].to_list()))
