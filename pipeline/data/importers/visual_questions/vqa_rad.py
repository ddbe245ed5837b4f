"""VQA-RAD (Lau et al. 2018, doi:10.1038/sdata.2018.251): 315 radiology images and 2,248 questions, CC0."""

from pathlib import Path
from typing import Any

from .....plain_text import kind_of
from .....progress import Progress
from ...manifest import AnswerType, Manifest, ManifestRow
from ..common import ImageColumns, ImportOptions, finished, first_existing, read_images, unasked_rows
from ..image_folders.image_files import listed_images
from ..image_names import normalized
from ..records import lacking, read_records, text

JSON_NAMES = ("vqa_rad.json", "VQA_RAD Dataset Public.json")
IMAGE_FOLDERS = ("images", "VQA_RAD Image Folder")
MEVF_FILES = {"train": "trainset.json", "test": "testset.json"}
MEVF_NESTED = "data_RAD"
"""The folder in MEVF's archive."""
TEST_PHRASES = frozenset({"test_freeform", "test_para"})
"""The official test split, 451 questions; it is not image-disjoint from the rest."""

ANSWER_TYPES: dict[str, AnswerType] = {"OPEN": "open", "CLOSED": "closed"}
MODALITIES = {"CHEST": "X-ray", "ABD": "CT", "HEAD": "CT or MRI"}
"""By organ, as the paper describes its images; the file itself has no modality."""


def import_vqa_rad(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read VQA-RAD with its official test split; the rest is `train`.

    An image in the folder without a question becomes a row without a question, so that stage one extracts it too.

    Raises:
        InputError: The layout is unknown, records are malformed, or images are missing.
    """
    table = first_existing(src, JSON_NAMES, "question file")
    root = options.images or first_existing(src, IMAGE_FOLDERS, "image folder")
    records = [(_official_split(record), record) for record in read_records(table, _problem)]
    return _manifest(records, root, "vqa-rad", options, progress)


def import_mevf_rad(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read VQA-RAD as prepared by MEVF (Nguyen et al., MICCAI 2019): trainset.json and testset.json beside `images/`.

    Its training file has rephrased questions, so it has more questions than the release.

    Raises:
        InputError: Records are malformed, or images are missing.
    """
    folder = src if src.is_dir() else src.parent
    folder = folder / MEVF_NESTED if (folder / MEVF_NESTED).is_dir() else folder
    root = options.images or first_existing(folder, IMAGE_FOLDERS, "image folder")
    files = {split: folder / name for split, name in MEVF_FILES.items() if src.is_dir() or src.name == name}
    for split, path in files.items():
        if not path.is_file():
            progress.note(f"no questions for {split}: {path} does not exist")
    there = {split: path for split, path in files.items() if path.is_file()}
    records = [(split, record) for split, path in there.items() for record in read_records(path, _problem)]
    return _manifest(records, root, "vqa-rad mevf", options, progress)


def _official_split(record: dict[str, Any]) -> str:
    return "test" if text(record["phrase_type"]) in TEST_PHRASES else "train"


def _manifest(
    records: list[tuple[str, dict[str, Any]]], root: Path, source: str, options: ImportOptions, progress: Progress
) -> Manifest:
    """Every question in its split, and a row without a question for every image that has none."""
    names = [str(record["image_name"]) for _, record in records]
    asked = {normalized(name) for name in names}
    unasked = [name for name in listed_images(root) if normalized(name) not in asked]
    found = read_images(root, names + unasked, progress)
    rows = [
        _row(split, record, found.columns[name], options)
        for (split, record), name in zip(records, names, strict=True)
        if name in found.columns
    ]
    rows += unasked_rows(unasked, found, options.data_use or "public", progress)
    return finished(rows, root, source, found.unreadable, progress)


def _row(split: str, record: dict[str, Any], image: ImageColumns, options: ImportOptions) -> ManifestRow:
    organ = text(record.get("image_organ"))
    return ManifestRow(
        question_id=f"vqa-rad-{record['qid']}",
        question=text(record["question"]),
        answer=text(record["answer"]),
        answer_type=ANSWER_TYPES[str(record["answer_type"]).strip()],
        split=options.split or split,
        data_use=options.data_use or "public",
        question_type=text(record.get("question_type")),
        modality=MODALITIES.get(organ or ""),
        organ=organ,
        **image,
    )


def _problem(record: dict[str, Any]) -> str | None:
    keys = ("qid", "image_name", "question", "answer", "answer_type", "phrase_type")
    missing = lacking(record, keys, nullable=("answer",))
    if missing is not None:
        return missing
    if not isinstance(record["answer"], str | int | float | None):
        return f"the answer is {kind_of(record['answer'])}"
    if text(record["question"]) is None:
        return "an empty question"
    if str(record["answer_type"]).strip() not in ANSWER_TYPES:
        return f"answer_type {record['answer_type']!r} is neither OPEN nor CLOSED"
    return None
