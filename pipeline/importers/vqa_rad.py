"""VQA-RAD (Lau et al. 2018, doi:10.1038/sdata.2018.251): 315 radiology images and 2,248 questions, CC0."""

from pathlib import Path
from typing import Any

from ...progress import Progress
from ..manifest import AnswerType, Manifest, ManifestRow
from .common import (
    IMAGE_SUFFIXES,
    ImageColumns,
    ImportOptions,
    first_existing,
    read_images,
    tell_result,
    unasked_rows,
)
from .records import lacking, read_records, text

JSON_NAMES = ("vqa_rad.json", "VQA_RAD Dataset Public.json")
IMAGE_FOLDERS = ("images", "VQA_RAD Image Folder")
TEST_PHRASES = frozenset({"test_freeform", "test_para"})
"""The official test split, 451 questions; it is not image-disjoint from the rest."""

ANSWER_TYPES: dict[str, AnswerType] = {"OPEN": "open", "CLOSED": "closed"}
MODALITIES = {"CHEST": "X-ray", "ABD": "CT", "HEAD": "CT or MRI"}
"""By organ, as the paper describes its images; the file itself has no modality."""


def import_vqa_rad(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read VQA-RAD with its official test split; the rest is `train`.

    An image of the folder that no question names becomes a row without a question, so that stage one sees it.

    Raises:
        InputError: the layout is another one, records are malformed, or images are missing.
    """
    table = first_existing(src, JSON_NAMES, "question file")
    root = options.images or first_existing(src, IMAGE_FOLDERS, "image folder")
    records = read_records(table, _problem)
    names = [str(record["image_name"]) for record in records]
    asked = set(names)
    present = (path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES) if root.is_dir() else ()
    unasked = sorted(path.name for path in present if path.name not in asked)
    found = read_images(root, names + unasked, progress)
    rows = [
        _row(record, found.columns[name], options)
        for record, name in zip(records, names, strict=True)
        if name in found.columns
    ]
    rows += unasked_rows(unasked, found, options.data_use or "public", progress)
    manifest = Manifest.from_rows(rows, root, "vqa-rad", found.unreadable)
    tell_result(manifest, progress)
    return manifest


def _row(record: dict[str, Any], image: ImageColumns, options: ImportOptions) -> ManifestRow:
    organ = text(record.get("image_organ"))
    own_split = "test" if text(record["phrase_type"]) in TEST_PHRASES else "train"
    return ManifestRow(
        question_id=f"vqa-rad-{record['qid']}",
        question=text(record["question"]),
        answer=text(record["answer"]),
        answer_type=ANSWER_TYPES[str(record["answer_type"]).strip()],
        split=options.split or own_split,
        data_use=options.data_use or "public",
        question_type=text(record.get("question_type")),
        modality=MODALITIES.get(organ or ""),
        organ=organ,
        **image,
    )


def _problem(record: dict[str, Any]) -> str | None:
    missing = lacking(record, ("qid", "image_name", "question", "answer", "answer_type", "phrase_type"))
    if missing is not None:
        return missing
    if not isinstance(record["answer"], str | int | float):
        return f"the answer is a {type(record['answer']).__name__}"
    if str(record["answer_type"]).strip() not in ANSWER_TYPES:
        return f"answer_type {record['answer_type']!r} is neither OPEN nor CLOSED"
    return None
