"""CARES (Xia et al., NeurIPS 2024): its `*_factuality.jsonl` files of yes/no questions about chest X-rays.

A line is `{question_id, image, question, answer}`, written by a language model from reports. In the IU-Xray file every
question_id is 0, questions end in `<image>`, and answers run from "Yes." and "- No" to whole sentences.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .....choices import DataUse
from .....progress import Progress
from ...manifest import ManifestRow
from ..common import FoundImages, ImportOptions, shortened
from ..records import lacking, read_records, text

IMAGE_TOKEN = "<image>"
SPLIT = "test"
_STATED = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def read_yes_no(path: Path) -> list[dict[str, Any]]:
    """Read the questions of one file.

    Raises:
        InputError: The file cannot be read, or lines are malformed.
    """
    return read_records(path, lambda record: lacking(record, ("image", "question", "answer"), ("answer",)))


def stated_answer(answer: str) -> str | None:
    """`yes` or `no` if an answer begins with it, ignoring punctuation; else `None`: it does not answer the question.

    "No information on bones is provided" counts as no, as in CARES's own evaluation.
    """
    found = _STATED.match(answer)
    return found[1].lower() if found else None


def yes_no_rows(
    prefix: str,
    records: Sequence[dict[str, Any]],
    found: FoundImages,
    splits: Mapping[str, str],
    data_use: DataUse,
    options: ImportOptions,
    progress: Progress,
) -> list[ManifestRow]:
    """One closed question per line; `splits` has the splits of images from another file of the data set.

    Answers that do not begin with yes or no become unknown, and a note counts them.
    """
    rows = [
        ManifestRow(
            question_id=f"{prefix}-{number}",
            question=text(str(record["question"]).replace(IMAGE_TOKEN, "")),
            answer=stated_answer(text(record["answer"]) or ""),
            answer_type="closed",
            split=options.split or splits.get(str(record["image"]), SPLIT),
            data_use=options.data_use or data_use,
            question_type="yes/no",
            modality="X-ray",
            organ="chest",
            **found.columns[str(record["image"])],
        )
        for number, record in enumerate(records)
        if str(record["image"]) in found.columns
    ]
    unknown = [row.question_id for row in rows if row.answer is None]
    if unknown:
        progress.note(
            f"{len(unknown)} of {len(rows)} reference answers are neither yes nor no; they become unknown "
            f"and are not scored; {shortened(unknown)}"
        )
    return rows
