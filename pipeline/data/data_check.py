"""`medalign data check`: report leakage, missing files, empty answers and duplicates in a manifest.

Everything but the files is read off the manifest: hashes were worked out at import, so no image is opened, unless
its hashes are checked too.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from ...errors import PartialResult
from ...path_checks import is_absent
from ...plain_text import counted
from ...progress import Progress
from ...student.metrics.choices import answer_index
from .file_check import FileCheck, check_files
from .image_hashing import NAMED_AT_MOST
from .manifest import Manifest
from .manifest_images import IMAGE_HASHES, every_image

_SHOWN = 5
"""Rows that the JSON report lists for each finding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leakage:
    """Overlap between two splits."""

    splits: tuple[str, str]
    images: tuple[int, int]
    """Distinct images with questions, per split."""
    questions: tuple[int, int]
    """Questions, per split."""
    shared_images: int
    """Images that are in both, byte for byte."""
    shared_pixels: int
    """Images that are in both with equal pixels but different bytes (a re-saved file)."""
    shared_questions: int
    """Questions about the same image that are in both."""
    touched_questions: tuple[int, int]
    """Questions about an image that the other split has too, by bytes or pixels; per split."""
    first_images: tuple[tuple[str, str], ...]
    """Paths in both splits of the first shared images."""
    first_questions: tuple[tuple[str, str], ...]
    """Ids in both splits of the first shared questions."""

    def lines(self) -> Iterator[str]:
        """The first shared images and questions, one line each."""
        one, other = self.splits
        for name, same in self.first_images:
            yield f"image {name} of {one} is {same} of {other}"
        for name, same in self.first_questions:
            yield f"question {name} of {one} is {same} of {other}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Rows with one defect: their number, and the ids (or for files the paths) of the first few."""

    count: int
    first: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    """Ids of the earlier rows that these repeat or contradict."""

    def record(self, name: str) -> dict[str, object]:
        """The entry of the finding `name` in the JSON report."""
        return {"finding": name, "rows": list(self.first), **({"earlier": list(self.earlier)} if self.earlier else {})}

    def line(self, name: str) -> str:
        """The same for people."""
        pairs = [f"{row} (earlier: {before})" for row, before in zip(self.first, self.earlier, strict=False)]
        return f"{name.replace('_', ' ')}: {', '.join(pairs or self.first)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestCheck:
    """The findings about a manifest."""

    path: Path
    manifest: Manifest
    leakage: tuple[Leakage, ...]
    """Pairs of splits that share images or questions."""
    missing_images: Finding
    missing_masks: Finding
    undecodable_images: Finding
    empty_answers: Finding
    """Questions without a reference answer, which cannot be scored or trained on."""
    foreign_answers: Finding
    """Multiple-choice answers that are not among their options."""
    duplicates: Finding
    """Rows that repeat an earlier row of the same split: same image, question, history and answer."""
    contradictions: Finding
    """Rows with a different answer than an earlier row with the same image and question, in any split."""
    files: FileCheck | None = None
    """The comparison of image files with the manifest's hashes, if requested."""

    def summary(self) -> dict[str, Any]:
        pairs = {" and ".join(found.splits): found for found in self.leakage}
        findings = {name: getattr(self, name) for name in FINDINGS}
        return {
            "manifest": str(self.path),
            "source": self.manifest.source,
            "questions": self.manifest.questions.height,
            "images": self.manifest.images().height,
            "splits": self.manifest.splits,
            "images_in_both": {name: found.shared_images for name, found in pairs.items()},
            "same_pixels_in_both": {name: found.shared_pixels for name, found in pairs.items()},
            "same_questions_in_both": {name: found.shared_questions for name, found in pairs.items()},
            **{name: finding.count for name, finding in findings.items()},
            **({} if self.files is None else self.files.summary()),
            "leakage": [asdict(found) for found in self.leakage],
            "first": [finding.record(name) for name, finding in findings.items() if finding.count],
        }

    def table(self) -> dict[str, Any]:
        """The summary for people: names what splits share, and the first rows of each finding."""
        findings = {name: getattr(self, name) for name in FINDINGS}
        values = self.summary() | {
            "leakage": [line for found in self.leakage for line in found.lines()],
            "first": [finding.line(name) for name, finding in findings.items() if finding.count],
        }
        return {name: value for name, value in values.items() if name != "first" or value}

    def sentences(self) -> Iterator[str]:
        """Describe the leakage, one line per pair of splits."""
        for found in self.leakage:
            one, other = found.splits
            yield (
                f"{one} and {other} share {counted(found.shared_images, 'image')} with equal bytes and "
                f"{found.shared_pixels} more with equal pixels: "
                f"{found.touched_questions[0]} of {found.questions[0]} questions of {one} and "
                f"{found.touched_questions[1]} of {found.questions[1]} of {other} are about shared images"
            )

    def raise_for_files(self) -> None:
        """Raise InputError if files contain other images, else PartialResult if files are missing."""
        if self.files is not None:
            self.files.raise_for_wrong([*self.missing_images.first, *self.missing_masks.first])
        self.raise_for_missing()

    def raise_for_missing(self) -> None:
        """Raise PartialResult if images or masks are missing."""
        gone = [*self.missing_images.first, *self.missing_masks.first]
        if gone:
            count = self.missing_images.count + self.missing_masks.count
            named = "\n".join(f"  {name}" for name in gone[:NAMED_AT_MOST])
            subject = counted(count, "file is", "files are")
            raise PartialResult(
                f"{subject} missing under the manifest's root {self.manifest.root}, such as:\n{named}\n"
                "If the files were moved, pass their new root with --root DIR."
            )


FINDINGS = (
    "missing_images",
    "missing_masks",
    "undecodable_images",
    "empty_answers",
    "foreign_answers",
    "duplicates",
    "contradictions",
)


def check_manifest(path: Path, root: Path | None, progress: Progress, *, hashes: bool = False) -> ManifestCheck:
    """Check every row of a manifest and whether its files exist; with `hashes`, also compare their content.

    Raises:
        InputError: The manifest cannot be read or violates the schema.
    """
    manifest = Manifest.read(path, root)
    frame = _keyed(manifest.frame)
    asked = frame.filter(pl.col("question").is_not_null())
    missing_images, missing_masks = _missing_files(manifest, progress)
    undecodable = manifest.images().filter(pl.col("pixel_hash").is_null())
    return ManifestCheck(
        path=path,
        manifest=manifest,
        leakage=tuple(_leakage(asked)),
        missing_images=missing_images,
        missing_masks=missing_masks,
        undecodable_images=_finding(undecodable["image"]),
        empty_answers=_finding(asked.filter(pl.col("said") == "")["question_id"]),
        foreign_answers=_finding(_foreign_answers(asked)["question_id"]),
        duplicates=_finding_of_pairs(_repeated(asked, ["split", "asks", "said"])),
        contradictions=_finding_of_pairs(_contradicting(asked)),
        files=check_files(manifest, progress) if hashes else None,
    )


def _keyed(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `asks` (images, history and question as one key) and `said` (the answer), lowercase and stripped."""
    turns = pl.col("history").list.eval(pl.element().struct.json_encode()).list.join("\n")
    question = pl.col("question").str.strip_chars().str.to_lowercase()
    return frame.with_columns(
        pl.struct(IMAGE_HASHES.alias("images"), turns.alias("turns"), question).alias("asks"),
        pl.col("answer").fill_null("").str.strip_chars().str.to_lowercase().alias("said"),
    )


def _leakage(asked: pl.DataFrame) -> Iterator[Leakage]:
    """Every pair of splits that shares an image or a question, in order of first appearance."""
    parts = {name: part for (name,), part in asked.group_by("split", maintain_order=True)}
    for one, other in combinations(parts, 2):
        first, second = parts[one], parts[other]
        images = tuple(every_image(part).unique("image_hash", maintain_order=True) for part in (first, second))
        by_bytes = images[0].join(images[1], on="image_hash", how="semi")
        rest = [part.join(by_bytes, on="image_hash", how="anti").drop_nulls("pixel_hash") for part in images]
        by_pixels = (
            rest[0]
            .unique("pixel_hash", maintain_order=True)
            .join(rest[1], on="pixel_hash", how="semi", maintain_order="left")
        )
        questions = first.unique("asks", keep="first", maintain_order=True).join(
            second, on="asks", how="semi", maintain_order="left"
        )
        if by_bytes.height or by_pixels.height or questions.height:
            yield Leakage(
                splits=(str(one), str(other)),
                images=(images[0].height, images[1].height),
                questions=(first.height, second.height),
                shared_images=by_bytes.height,
                shared_pixels=by_pixels.height,
                shared_questions=questions.height,
                touched_questions=(_touched(first, second), _touched(second, first)),
                first_images=(
                    *_first_pairs(by_bytes, images[1], "image_hash", "image"),
                    *_first_pairs(by_pixels, rest[1], "pixel_hash", "image"),
                ),
                first_questions=_first_pairs(questions, second, "asks", "question_id"),
            )


def _first_pairs(shared: pl.DataFrame, other: pl.DataFrame, key: str, name: str) -> tuple[tuple[str, str], ...]:
    """The names in both splits of the first items that they share."""
    theirs = other.unique(key, keep="first", maintain_order=True).select(key, pl.col(name).alias("theirs"))
    pairs = shared.head(_SHOWN).join(theirs, on=key, maintain_order="left").select(name, "theirs")
    return tuple(pairs.iter_rows())


def _touched(split: pl.DataFrame, other: pl.DataFrame) -> int:
    """The number of questions of a split about an image that the other has too."""
    theirs = every_image(other)
    hashes, pixels = theirs["image_hash"].unique(), theirs["pixel_hash"].drop_nulls().unique()
    seen = pl.col("image_hash").is_in(hashes.implode()) | pl.col("pixel_hash").is_in(pixels.implode())
    return every_image(split).filter(seen.fill_null(False))["row"].n_unique()


def _repeated(asked: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Rows whose key appeared before, with the id of the `earlier` row."""
    first = asked.unique(key, keep="first", maintain_order=True).select(*key, pl.col("question_id").alias("earlier"))
    return asked.filter(~pl.struct(key).is_first_distinct()).join(first, on=key, maintain_order="left")


def _contradicting(asked: pl.DataFrame) -> pl.DataFrame:
    """Rows whose answer differs from the first answer to the same question about the same image, the `earlier` row."""
    answered = asked.filter((pl.col("said") != "") & pl.col("image_hash").is_not_null())
    first = answered.unique("asks", keep="first", maintain_order=True).select(
        "asks", pl.col("said").alias("first_said"), pl.col("question_id").alias("earlier")
    )
    return answered.join(first, on="asks", how="left", maintain_order="left").filter(
        pl.col("said") != pl.col("first_said")
    )


def _foreign_answers(asked: pl.DataFrame) -> pl.DataFrame:
    choices = asked.filter((pl.col("answer_type") == "choice") & (pl.col("said") != ""))
    among = [
        answer_index(answer, options) is not None for answer, options in choices.select("answer", "options").iter_rows()
    ]
    return choices.filter(~pl.Series(among, dtype=pl.Boolean))


def _missing_files(manifest: Manifest, progress: Progress) -> tuple[Finding, Finding]:
    """Missing images and masks; every name is looked up once."""
    images = manifest.image_files()["image"]
    regions = manifest.frame["regions"].explode().struct.field("mask")
    masks = regions.drop_nulls().unique(maintain_order=True)
    progress.start("checking files", len(images) + len(masks))
    gone = []
    for names in (images, masks):
        absent = []
        for name in names:
            if is_absent(manifest.path_of(name)):
                absent.append(name)
            progress.advance()
        gone.append(_finding(pl.Series(absent, dtype=pl.String)))
    return gone[0], gone[1]


def _finding(names: pl.Series) -> Finding:
    return Finding(count=len(names), first=tuple(names.head(_SHOWN)))


def _finding_of_pairs(rows: pl.DataFrame) -> Finding:
    return Finding(
        count=rows.height,
        first=tuple(rows["question_id"].head(_SHOWN)),
        earlier=tuple(rows["earlier"].head(_SHOWN)),
    )
