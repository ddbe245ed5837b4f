"""What every importer shares: its options, the identities of its images, and what it says about the result."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import polars as pl

from ....errors import InputError
from ....plain_text import counted
from ....progress import Progress, add_count
from ..image_hashing import NAMED_AT_MOST, ImageIdentity, hash_images
from ..manifest import DataUse, Manifest, ManifestRow
from ..manifest_images import every_image
from .image_names import locate_images
from .splits import split_name

DEFAULT_LANGUAGE = "en"

_WORDS_FOR_NOTHING = ("nan", "na", "n/a", "none", "null", "<na>")
"""What other software writes into a table for a missing value."""

UNASKED_SPLIT = "images"
"""Split of an image that nothing is asked about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """What a user may say about an import; an importer documents what it does with each."""

    split: str | None = None
    """Put every question in this split; `None` keeps the data set's own."""
    data_use: DataUse | None = None
    """Who may see the data; `None`: what the data set is released under, `private` where nothing is known."""
    images: Path | None = None
    """Folder that image names start from; `None`: where the data set's layout has it."""
    seed: int = 0
    """For what an importer draws at random."""
    language: str = DEFAULT_LANGUAGE
    """Of the questions, where a data set asks in several; `all` takes every one."""
    columns: tuple[tuple[str, str], ...] = ()
    """Pairs of what a column holds and its name, for a table of one's own; the rest is guessed from usual names."""
    unpacked: Path | None = None
    """Folder for images that come inside Parquet or ZIP files; `None` where there is no such place."""

    def unpacked_folder(self, source: Path) -> Path:
        """Where the images inside `source` are written to.

        Raises:
            InputError: no such place was given.
        """
        if self.unpacked is None:
            raise InputError(f"{source} holds its images itself, and there is no folder to write them to")
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
    """By name. A file that could not be read has no entry, and what is asked about it no row."""
    unreadable: tuple[str, ...]
    """Why files could not be read, one line each without a name."""


def finished(
    rows: Sequence[ManifestRow], root: Path, source: str, unreadable: tuple[str, ...], progress: Progress
) -> Manifest:
    """The manifest of an import: ids made unique, splits under one name, and a note of what it holds."""
    rows = [replace(row, split=split_name(row.split)) for row in with_unique_ids(list(rows), progress)]
    manifest = Manifest.from_rows(rows, root, source, unreadable)
    tell_result(manifest, progress)
    return manifest


def read_images(root: Path, names: Iterable[str], progress: Progress) -> FoundImages:
    """Identify each distinct image that a data set names under `root` once; columns are keyed by these names.

    Raises:
        InputError: names lead out of `root`, or images are missing; all of them in one message.
    """
    located = locate_images(root, names, progress)
    found = identify_images(root, list(dict.fromkeys(located.values())), progress)
    columns = {name: found.columns[path] for name, path in located.items() if path in found.columns}
    return FoundImages(columns, found.unreadable)


def identify_images(root: Path, names: Sequence[str], progress: Progress) -> FoundImages:
    """Hash and decode distinct files; undecodable ones are kept, unreadable ones are not, both are told."""
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
            f"{len(damaged)} of {len(names)} images cannot be decoded and stay in the manifest without a pixel hash; "
            f"{shortened(damaged)}"
        )
    if lines:
        progress.note(
            f"{len(lines)} of {len(names)} files cannot be read and get no row; {shortened(lines, NAMED_AT_MOST)}"
        )
    narrow = [printable(name) for name, identity in zip(names, identities, strict=True) if identity.narrow]
    add_count(progress, "narrow_range_images", len(narrow))
    if narrow:
        progress.note(
            f"{len(narrow)} of {len(names)} images use under an eighth of the range of their pixels: 16-bit ones are "
            f"scaled, others stay as dark or pale as they are (docs/images.md); {shortened(narrow)}"
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
    """A row without a question for every image that no question names, so that stage one sees it too."""
    rows = [
        ManifestRow(question_id=f"image-{name}", split=UNASKED_SPLIT, data_use=data_use, **found.columns[name])
        for name in names
        if name in found.columns
    ]
    if rows:
        subject = counted(
            len(rows), "image that no question names is kept as a row", "images that no question names are kept as rows"
        )
        progress.note(f"{subject} without one")
    return rows


def with_unique_ids(rows: list[ManifestRow], progress: Progress) -> list[ManifestRow]:
    """Number ids that are used more than once (`7`, `7~2`, `7~3`) and say so."""
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
            "question shares another one's id and was numbered",
            "questions share another one's id and were numbered",
        )
        progress.note(f"{subject}; {shortened(renamed)}")
    return unique


def tell_result(manifest: Manifest, progress: Progress) -> None:
    """Note counts, missing and odd answers, images stored under several names, and images that splits share."""
    splits = ", ".join(f"{name} {count}" for name, count in manifest.splits.items())
    progress.note(f"{manifest.images().height} distinct images, {manifest.questions.height} questions; rows: {splits}")
    empty = manifest.questions.filter(pl.col("answer").is_null())["question_id"].to_list()
    if empty:
        progress.note(
            f"{len(empty)} of {manifest.questions.height} questions have no reference answer (empty, null or NaN): "
            f"they are neither trained on nor scored; {shortened(empty)}"
        )
    words = manifest.questions.filter(pl.col("answer").str.to_lowercase().is_in(list(_WORDS_FOR_NOTHING)))
    if words.height:
        progress.note(
            f"{words.height} answers read {', '.join(sorted(set(words['answer'])))} and are kept as text: leave the "
            f"cell empty where no answer is meant; {shortened(words['question_id'].to_list())}"
        )
    foreign = manifest.questions.filter(
        (pl.col("answer_type") == "choice") & ~pl.col("options").list.contains(pl.col("answer"))
    )["question_id"].to_list()
    if foreign:
        subject = counted(
            len(foreign), "answer is not literally one of its options", "answers are not literally one of their options"
        )
        progress.note(f"{subject}; {shortened(foreign)}")
    names = manifest.image_files().group_by("image_hash").len("names")
    copies = names.filter(pl.col("names") > 1).height
    if copies:
        progress.note(
            f"{counted(copies, 'image lies', 'images lie')} there under more than one name; a store holds each once"
        )
    shared = shared_images(manifest)
    if shared:
        subject = counted(shared, "image has", "images have")
        progress.note(f"{subject} questions in more than one split: scores on them are not on unseen images")


def shared_images(manifest: Manifest) -> int:
    """How many distinct images have questions in more than one split."""
    asked = every_image(manifest.questions, ["split"])
    splits = asked.group_by("image_hash").agg(pl.col("split").n_unique().alias("splits"))
    return splits.filter(pl.col("splits") > 1).height


def first_existing(folder: Path, names: Iterable[str], what: str) -> Path:
    """The first of several names that lies in a folder.

    Raises:
        InputError: none does.
    """
    names = list(names)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with {what} ({' or '.join(names)})")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder} has no {what}: looked for {' and '.join(names)}")


def refuse(problems: list[str], path: Path, total: int, what: str) -> None:
    """Raise one error for all malformed records of a file, if there are any.

    Raises:
        InputError: the first problems by name and the count of all.
    """
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:NAMED_AT_MOST])
        rest = len(problems) - NAMED_AT_MOST
        more = f"\n  and {rest} more" if rest > 0 else ""
        raise InputError(f"{path}: {len(problems)} of {total} {what} are malformed:\n{listed}{more}")


def shortened(items: list[str], shown: int = 3) -> str:
    """`first: a; b; c` for a long list."""
    return "first: " + "; ".join(items[:shown])


def printable(name: str) -> str:
    """A file name as a terminal can show it: control characters and bytes that are no text escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]
