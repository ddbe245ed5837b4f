"""SLAKE (Liu et al. 2021, arXiv 2102.09542): 642 images, 14,028 questions in English and Chinese, masks and boxes."""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import AnswerType, Manifest, ManifestRow
from ...regions import Region
from ..common import ImageColumns, ImportOptions, finished, read_images, unasked_rows
from ..image_folders.embedded_images import unzip
from ..image_folders.image_files import listed_images
from ..records import lacking, read_records, text
from .slake_regions import read_regions

QUESTION_FILES = {
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
"""Question files per split: in the release, and in its copy on the Hugging Face Hub."""
IMAGE_FOLDER = "imgs"
IMAGE_ARCHIVE = "imgs.zip"
NESTED = "Slake1.0"
"""The folder in the release's archive."""
ANSWER_TYPES: dict[str, AnswerType] = {"OPEN": "open", "CLOSED": "closed"}
EVERY_LANGUAGE = "all"


def import_slake(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read SLAKE's questions in one language, or all, with its three splits and the regions of every image.

    Raises:
        InputError: The layout is unknown, records are malformed, images are missing, or there is no question in the
            language.
    """
    src = src / NESTED if (src / NESTED).is_dir() else src
    root = options.images or _images(src, options, progress)
    records = _in_language(_read_splits(src, progress), src, options.language, progress)
    names = [str(record["img_name"]) for _, record in records]
    asked = set(names)
    present = [name for name in listed_images(root, [".jpg"]) if PurePosixPath(name).name.startswith("source")]
    unasked = [name for name in present if name not in asked]
    found = read_images(root, names + unasked, progress)
    regions = read_regions(src, root, found, progress)
    rows = [
        _row(split, record, found.columns[name], regions[name], options)
        for (split, record), name in zip(records, names, strict=True)
        if name in found.columns
    ]
    rows += unasked_rows(unasked, found, options.data_use or "public", progress)
    source = f"slake language={options.language}"
    return finished(rows, root, source, found.unreadable, progress)


def _images(src: Path, options: ImportOptions, progress: Progress) -> Path:
    """`imgs/`, or `imgs.zip` of the copy on the Hugging Face Hub, unpacked beside the manifest."""
    archive = src / IMAGE_ARCHIVE
    if (src / IMAGE_FOLDER).is_dir() or not archive.is_file():
        return src / IMAGE_FOLDER
    unpacked = unzip(archive, options.unpacked_folder(archive), progress)
    progress.note(f"{archive} was unpacked below {unpacked}")
    return unpacked / IMAGE_FOLDER if (unpacked / IMAGE_FOLDER).is_dir() else unpacked


def _row(
    split: str, record: dict[str, Any], image: ImageColumns, regions: tuple[Region, ...], options: ImportOptions
) -> ManifestRow:
    return ManifestRow(
        question_id=f"slake-{record['qid']}",
        question=text(record["question"]),
        answer=text(record["answer"]),
        answer_type=ANSWER_TYPES[str(record["answer_type"]).strip()],
        split=options.split or split,
        data_use=options.data_use or "public",
        question_type=text(record.get("content_type")),
        modality=text(record.get("modality")),
        organ=text(record.get("location")),
        regions=regions,
        **image,
    )


def _read_splits(src: Path, progress: Progress) -> list[tuple[str, dict[str, Any]]]:
    """Split and record of every question; a missing split file is noted."""
    files = {
        split: next((src / name for name in names if (src / name).is_file()), None)
        for split, names in QUESTION_FILES.items()
    }
    if not any(files.values()):
        looked_for = ", ".join(name for names in QUESTION_FILES.values() for name in names)
        raise InputError(f"{src} has no question file: looked for {looked_for}")
    for split, file in files.items():
        if file is None:
            progress.note(f"{src} has no questions for {split}: neither {' nor '.join(QUESTION_FILES[split])}")
    return [(split, record) for split, file in files.items() if file for record in read_records(file, _problem)]


def _in_language(
    records: list[tuple[str, dict[str, Any]]], src: Path, language: str, progress: Progress
) -> list[tuple[str, dict[str, Any]]]:
    counts = Counter(str(record["q_lang"]) for _, record in records)
    kept = [pair for pair in records if language in (EVERY_LANGUAGE, pair[1]["q_lang"])]
    if not kept:
        asked = ", ".join(f"{name} ({count})" for name, count in counts.most_common())
        raise InputError(
            f"{src} has no questions in {language!r}; its languages: {asked}; `--language all` selects all"
        )
    if len(kept) < len(records):
        others = ", ".join(f"{count} in {name}" for name, count in counts.most_common() if name != language)
        subject = counted(len(kept), "question is", "questions are")
        progress.note(f"{subject} in {language}; skipped: {others} (--language NAME, or all)")
    return kept


def _problem(record: dict[str, Any]) -> str | None:
    missing = lacking(record, ("qid", "img_name", "question", "answer", "answer_type", "q_lang"), ("answer",))
    if missing is not None:
        return missing
    if str(record["answer_type"]).strip() not in ANSWER_TYPES:
        return f"answer_type {record['answer_type']!r} is neither OPEN nor CLOSED"
    if text(record["question"]) is None:
        return "an empty question"
    return None
