"""OmniMedVQA (Hu et al., CVPR 2024): multiple choice over 73 data sets; the open-access ones include images."""

from collections import Counter
from pathlib import Path
from typing import Any

from .....choices import DataUse
from .....errors import InputError
from .....path_checks import is_absent
from .....progress import Progress
from ...manifest import Manifest, ManifestRow
from ..common import ImageColumns, ImportOptions, finished, read_images
from ..records import lacking, read_records, text
from ..tables.answer_options import Options
from ..tables.notations import UnclearValue

NESTED = "OmniMedVQA"
QUESTION_FOLDER = "QA_information"
ACCESS: dict[str, DataUse] = {"Open-access": "public", "Restricted-access": "credentialed"}
"""Folders of question files -> data-use class of their images; restricted images must be requested."""
OPTION_KEYS = tuple(f"option_{letter}" for letter in "ABCD")
SPLIT = "test"
"""The benchmark does not define splits."""


def import_omnimedvqa(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read the questions of every data set whose images exist.

    Image names are relative to the folder of the release (`Images/ACRIMA/...`). Restricted images are not in the
    release, and the archive can be downloaded in part: questions about missing restricted images, and those of a data
    set without any images, are skipped and counted. An open-access data set must be complete or entirely absent.

    Raises:
        InputError: The layout is unknown, records are malformed, some images of an open-access data set are missing, or
            all images are missing.
    """
    src = src / NESTED if (src / NESTED / QUESTION_FOLDER).is_dir() else src
    root = options.images or src
    asked = _present(list(_questions(src)), root, progress)
    found = read_images(root, [str(record["image_path"]) for _, record in asked], progress)
    rows = [
        _row(use, record, found.columns[str(record["image_path"])], options)
        for use, record in asked
        if str(record["image_path"]) in found.columns
    ]
    return finished(rows, root, "omnimedvqa", found.unreadable, progress)


def _row(use: DataUse, record: dict[str, Any], image: ImageColumns, options: ImportOptions) -> ManifestRow:
    offered, answer = _options(record), text(record["gt_answer"])
    return ManifestRow(
        question_id=str(record["question_id"]),
        question=text(record["question"]),
        answer=answer and offered.chosen(answer),
        answer_type="choice",
        options=offered.texts,
        split=options.split or SPLIT,
        data_use=options.data_use or use,
        question_type=text(record.get("question_type")),
        # One record of the release has `modality` for `modality_type`.
        modality=text(record.get("modality_type", record.get("modality"))),
        **image,
    )


def _options(record: dict[str, Any]) -> Options:
    return Options.lettered({key[-1]: text(record[key]) for key in OPTION_KEYS if key in record})


def _questions(src: Path) -> list[tuple[DataUse, dict[str, Any]]]:
    """Every record of every question file with the class of its images.

    Raises:
        InputError: There is no question file, or records are malformed.
    """
    files = [
        (use, path)
        for access, use in ACCESS.items()
        for path in sorted((src / QUESTION_FOLDER / access).glob("[!.]*.json"))
    ]
    if not files:
        folders = " or ".join(f"{QUESTION_FOLDER}/{access}" for access in ACCESS)
        raise InputError(f"{src} has no question files: looked for *.json in {folders}")
    return [(use, record) for use, path in files for record in read_records(path, _problem)]


def _present(
    asked: list[tuple[DataUse, dict[str, Any]]], root: Path, progress: Progress
) -> list[tuple[DataUse, dict[str, Any]]]:
    """Skip questions about images that are not part of this copy."""
    names = {str(record["image_path"]) for _, record in asked}
    absent = {name for name in names if is_absent(root / name.replace("\\", "/"))}
    whole_sets = {_set_of(record) for _, record in asked if str(record["image_path"]) not in absent}
    kept, restricted, missing = [], Counter[str](), Counter[str]()
    for use, record in asked:
        if str(record["image_path"]) not in absent or (use == "public" and _set_of(record) in whole_sets):
            kept.append((use, record))  # `read_images` reports gaps in existing data sets
        elif use == "public":
            missing[_set_of(record)] += 1
        else:
            restricted[_set_of(record)] += 1
    for counts, why in (
        (restricted, "about missing restricted images"),
        (missing, "of data sets without any images"),
    ):
        if counts:
            sets = ", ".join(f"{name} {count}" for name, count in counts.most_common())
            progress.note(f"{counts.total()} questions {why} are skipped: {sets}")
    if not kept:
        raise InputError(
            f"none of the {len(asked)} questions has its image under {root}; pass their folder with --images DIR"
        )
    return kept


def _set_of(record: dict[str, Any]) -> str:
    return str(record.get("dataset"))


def _problem(record: dict[str, Any]) -> str | None:
    missing = lacking(record, ("question_id", "question", "gt_answer", "image_path"), ("gt_answer",))
    if missing is not None:
        return missing
    offered = _options(record)
    try:
        offered.chosen(text(record["gt_answer"]) or "")
    except UnclearValue as error:
        return str(error)
    return None if offered.texts else "no options"
