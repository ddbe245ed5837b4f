"""Chest X-ray studies with reports: R2Gen's annotation.json (Chen et al., EMNLP 2020), and rows that ask for a report.

A row has one image, as in R2Gen's MIMIC-CXR records. The question about a study uses its first image, usually the
frontal view in R2Gen's IU X-Ray; its other images become rows without a question, so that stage one extracts them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .....choices import DataUse
from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import ManifestRow
from ..common import UNASKED_SPLIT, FoundImages, ImageColumns, ImportOptions, unasked_rows
from ..records import check_records, lacking, read_json, text
from ..splits import split_name

REPORT_QUESTION = "Describe the findings of this chest X-ray in a radiology report."


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One report and its images."""

    id: str
    images: tuple[str, ...]
    """Names relative to the image folder; not empty."""
    report: str | None
    """`None` if there is no report to train on or compare with."""
    split: str
    view: str | None = None
    """View of the first image: PA, AP, LATERAL."""


def read_annotation(path: Path) -> list[Study]:
    """The studies of an R2Gen annotation.json: `{train: [...], val: [...], test: [...]}`.

    The key of the test split in the released IU X-Ray file is four spaces, so the `split` of a record takes precedence.

    Raises:
        InputError: It is not such a file, or records are malformed.
    """
    splits = read_json(path)
    if not isinstance(splits, dict) or not all(isinstance(records, list) for records in splits.values()):
        raise InputError(f"{path} is not an R2Gen annotation, which is an object with a list of studies for each split")
    for key, records in splits.items():
        check_records(records, path, partial(_problem, key), f"records of {key!r}")
    return [
        Study(
            id=str(record["id"]),
            images=tuple(record["image_path"]),
            report=" ".join((text(record["report"]) or "").split()) or None,
            split=split_name(text(record.get("split")) or key),
        )
        for key, records in splits.items()
        for record in records
    ]


def _problem(key: str, record: dict[str, Any]) -> str | None:
    missing = lacking(record, ("id", "report", "image_path"), nullable=("report",))
    if missing is not None:
        return missing
    images = record["image_path"]
    if not isinstance(images, list) or not images or not all(isinstance(name, str) for name in images):
        return "image_path is not a list of file names"
    if not (text(record.get("split")) or text(key)):
        return "no split: neither its own field nor the key of its list has one"
    return None


def report_rows(
    prefix: str,
    studies: Sequence[Study],
    found: FoundImages,
    data_use: DataUse,
    options: ImportOptions,
    progress: Progress,
) -> list[ManifestRow]:
    """Ask for the report of every study with its first image, and keep other images as rows without a question."""
    use = options.data_use or data_use
    rows = [
        _report_row(f"{prefix}-{study.id}", study, found.columns[study.images[0]], use, options.split)
        for study in studies
        if study.images[0] in found.columns
    ]
    silent = sum(row.question is None for row in rows)
    if silent:
        subject = counted(
            silent,
            "study has no report and is kept as a row",
            "studies have no report and are kept as rows",
        )
        progress.note(f"{subject} without a question")
    first = {study.images[0] for study in studies}
    others = dict.fromkeys(name for study in studies for name in study.images[1:] if name not in first)
    return rows + unasked_rows(others, found, use, progress)


def _report_row(
    question_id: str, study: Study, image: ImageColumns, data_use: DataUse, split: str | None
) -> ManifestRow:
    asks = study.report is not None
    return ManifestRow(
        question_id=question_id,
        question=REPORT_QUESTION if asks else None,
        answer=study.report,
        answer_type="report" if asks else None,
        split=(split or study.split) if asks else UNASKED_SPLIT,
        data_use=data_use,
        question_type="report" if study.view is None else f"report {study.view}",
        modality="X-ray",
        organ="chest",
        **image,
    )
