"""Shared by all importers: options, image identities, and notes about the result."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import polars as pl

from ....choices import DataUse
from ....errors import InputError
from ....plain_text import counted
from ....progress import Progress, add_count
from ..image_hashing import NAMED_AT_MOST, ImageIdentity, hash_images
from ..manifest import Manifest, ManifestRow
from ..manifest_images import every_image
from .image_names import locate_images
from .splits import split_name

DEFAULT_LANGUAGE = "en"

_WORDS_FOR_NOTHING = ("nan", "na", "n/a", "none", "null", "<na>")
"""Words that other software writes for a missing value."""

UNASKED_SPLIT = "images"
"""Split of images without a question."""


DEFAULT_SPLIT = "train"
"""The split of questions for which neither the data set nor --split names one, where these are for training."""
DRAW = "--split train=0.8,test=0.2"
"""An example of how to draw splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """The options of an import; each importer documents how it uses them."""

    split: str | None = None
    """Put every question in this split; `None` keeps the data set's own."""
    drawn_split: str | None = None
    """The fractions of `--split`, by which a split is drawn after the import; `None` if none is drawn."""
    data_use: DataUse | None = None
    """Data-use class; `None`: that of the data set, or `private` if unknown."""
    images: Path | None = None
    """Folder that image names are relative to; `None`: the one in the data set's layout."""
    seed: int = 0
    """Seed of random choices."""
    language: str = DEFAULT_LANGUAGE
    """Language of the questions if the data set has several; `all` for every one."""
    columns: tuple[tuple[str, str], ...] = ()
    """Pairs (role, column name) for custom tables; other columns are guessed from common names."""
    unpacked: Path | None = None
    """Folder for images from Parquet or ZIP files; `None` if there is none."""

    def note_unsplit(self, rows: str, progress: Progress) -> None:
        """Say that `rows` are in `DEFAULT_SPLIT` because nothing names a split; nothing if a split was asked for."""
        if self.split is None and self.drawn_split is None:
            progress.note(f"{rows} in the split {DEFAULT_SPLIT}, because no split is given; for others, pass {DRAW}")

    def unpacked_folder(self, source: Path) -> Path:
        """The folder to which the images inside `source` are written.

        Raises:
            InputError: `unpacked` is `None`.
        """
        if self.unpacked is None:
            raise InputError(f"{source} contains its images, but there is no folder to write them to")
        return self.unpacked


class ImageColumns(TypedDict, total=False):
    """The columns of a manifest row that describe its image; empty for a text-only row."""

    image: str | None
    image_hash: str | None
    pixel_hash: str | None
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The images of a data set."""

    columns: dict[str, ImageColumns]
    """Columns by image name. Files that could not be read have no entry, and questions about them no row."""
    unreadable: tuple[str, ...]
    """Why files could not be read, one line each without a name."""


def finished(
    rows: Sequence[ManifestRow], root: Path, source: str, unreadable: tuple[str, ...], progress: Progress
) -> Manifest:
    """Complete the manifest of an import: make ids unique, normalize split names, and note its contents."""
    rows = [replace(row, split=split_name(row.split)) for row in with_unique_ids(list(rows), progress)]
    manifest = Manifest.from_rows(rows, root, source, unreadable)
    tell_result(manifest, progress)
    return manifest


def read_images(
    root: Path, names: Iterable[str], progress: Progress, places: Mapping[str, str] | None = None
) -> FoundImages:
    """Identify each distinct image in a data set once; columns are keyed by the given names.

    `places` says which row of a table names an image, for the message about missing images.

    Raises:
        InputError: Names lead out of `root`, or images are missing; one message lists all.
    """
    located = locate_images(root, names, progress, places)
    found = identify_images(root, list(dict.fromkeys(located.values())), progress)
    columns = {name: found.columns[path] for name, path in located.items() if path in found.columns}
    return FoundImages(columns, found.unreadable)


def identify_images(root: Path, names: Sequence[str], progress: Progress) -> FoundImages:
    """Hash and decode distinct files; keep undecodable ones, skip unreadable ones, and note both."""
    identities = hash_images([root / name for name in names], progress)
    columns: dict[str, ImageColumns] = {}
    damaged: list[str] = []
    unreadable: list[str] = []
    lines: list[str] = []
    for name, identity in zip(names, identities, strict=True):
        if identity.image_hash is not None:
            columns[name] = _columns(name, identity)
        if identity.problem is not None:
            line = f"{printable(name)}: {identity.problem}"
            if identity.image_hash is not None:
                damaged.append(line)
            else:
                lines.append(line)
                unreadable.append(identity.problem)
    if damaged:
        progress.note(
            f"{len(damaged)} of {len(names)} images cannot be decoded and are kept without a pixel hash; "
            f"{shortened(damaged)}"
        )
    if lines:
        progress.note(
            f"{len(lines)} of {len(names)} files cannot be read and have no row; {shortened(lines, NAMED_AT_MOST)}"
        )
    narrow = [printable(name) for name, identity in zip(names, identities, strict=True) if identity.narrow]
    add_count(progress, "narrow_range_images", len(narrow))
    if narrow:
        progress.note(
            f"{len(narrow)} of {len(names)} images use less than an eighth of their pixel range: 16-bit images are "
            f"scaled, others are kept dark or pale (docs/images.md); {shortened(narrow)}"
        )
    return FoundImages(columns, tuple(unreadable))


def _columns(name: str, identity: ImageIdentity) -> ImageColumns:
    return {
        "image": name,
        "image_hash": identity.image_hash,
        "pixel_hash": identity.pixel_hash,
        "width": identity.width,
        "height": identity.height,
    }


def unasked_rows(names: Iterable[str], found: FoundImages, data_use: DataUse, progress: Progress) -> list[ManifestRow]:
    """A row without a question for every image that has none, so that stage one extracts it too."""
    rows = [
        ManifestRow(question_id=f"image-{name}", split=UNASKED_SPLIT, data_use=data_use, **found.columns[name])
        for name in names
        if name in found.columns
    ]
    if rows:
        subject = counted(len(rows), "image without a question is kept", "images without a question are kept")
        progress.note(subject)
    return rows


def with_unique_ids(rows: list[ManifestRow], progress: Progress) -> list[ManifestRow]:
    """Number ids that are used more than once (`7`, `7~2`, `7~3`), and note it."""
    taken = {row.question_id for row in rows}
    seen: Counter[str] = Counter()
    unique, renamed = [], []
    for row in rows:
        seen[row.question_id] += 1
        if seen[row.question_id] > 1:
            number = seen[row.question_id]
            while f"{row.question_id}~{number}" in taken:
                number += 1
            fresh = f"{row.question_id}~{number}"
            taken.add(fresh)
            renamed.append(fresh)
            row = replace(row, question_id=fresh)
        unique.append(row)
    if renamed:
        subject = counted(
            len(renamed),
            "question has the id of another one and was numbered",
            "questions have the id of another one and were numbered",
        )
        progress.note(f"{subject}; {shortened(renamed)}")
    return unique


def tell_result(manifest: Manifest, progress: Progress) -> None:
    """Note counts, missing and suspicious answers, images with several names, and images in several splits."""
    splits = ", ".join(f"{name} {count}" for name, count in manifest.splits.items())
    contents = [counted(manifest.images().height, "distinct image")]
    if manifest.questions.height:
        contents.append(counted(manifest.questions.height, "question"))
    progress.note(f"{', '.join(contents)}; rows: {splits}")
    empty = manifest.questions.filter(pl.col("answer").is_null())["question_id"].to_list()
    if empty:
        progress.note(
            f"{len(empty)} of {manifest.questions.height} questions have no reference answer (empty, null or NaN): "
            f"they are not used for training or scoring; {shortened(empty)}"
        )
    words = manifest.questions.filter(pl.col("answer").str.to_lowercase().is_in(list(_WORDS_FOR_NOTHING)))
    if words.height:
        progress.note(
            f"{words.height} answers are {', '.join(sorted(set(words['answer'])))} and are kept as text: leave the "
            f"cell empty if there is no answer; {shortened(words['question_id'].to_list())}"
        )
    foreign = manifest.questions.filter(
        (pl.col("answer_type") == "choice") & ~pl.col("options").list.contains(pl.col("answer"))
    )["question_id"].to_list()
    if foreign:
        subject = counted(
            len(foreign), "answer is not exactly one of its options", "answers are not exactly one of their options"
        )
        progress.note(f"{subject}; {shortened(foreign)}")
    names = manifest.image_files().group_by("image_hash").len("names")
    copies = names.filter(pl.col("names") > 1).height
    if copies:
        progress.note(f"{counted(copies, 'image has', 'images have')} more than one name; a store has one row for each")
    shared = shared_images(manifest)
    if shared:
        subject = counted(shared, "image has", "images have")
        progress.note(f"{subject} questions in more than one split: scores on them are not scores on unseen images")


def shared_images(manifest: Manifest) -> int:
    """The number of distinct images with questions in more than one split."""
    asked = every_image(manifest.questions, ["split"])
    splits = asked.group_by("image_hash").agg(pl.col("split").n_unique().alias("splits"))
    return splits.filter(pl.col("splits") > 1).height


def first_existing(folder: Path, names: Iterable[str], what: str) -> Path:
    """The first of several names that exists in a folder.

    Raises:
        InputError: None exists.
    """
    names = list(names)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected a folder with {what} ({' or '.join(names)})")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder} has no {what}: looked for {' and '.join(names)}")


def refuse(problems: list[str], path: Path, total: int, what: str) -> None:
    """Raise one error for all malformed records of a file, if any.

    Raises:
        InputError: With the first problems and their total number.
    """
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:NAMED_AT_MOST])
        rest = len(problems) - NAMED_AT_MOST
        more = f"\n  and {rest} more" if rest > 0 else ""
        raise InputError(f"{path}: {len(problems)} of {total} {what} are malformed:\n{listed}{more}")


def shortened(items: list[str], shown: int = 3) -> str:
    """Shorten a long list to `first: a; b; c`."""
    return "first: " + "; ".join(items[:shown])


def printable(name: str) -> str:
    """A file name for a terminal: control characters and undecodable bytes are escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]
