"""MedHEval (Chang et al. 2025): hallucination questions about images of SLAKE, VQA-RAD, IU X-Ray and MIMIC-CXR.

Its files are lists of `{qid, img_name, question, answer, choices, ...}` without images. `choices` is a string such as
`A. Abdomen, B. Chest`, and the answer of such a question is an option with its letter.
"""

import re
from pathlib import Path
from typing import Any

from .....choices import DataUse
from .....progress import Progress
from ...manifest import Manifest, ManifestRow
from ..chest.cares import stated_answer
from ..common import ImportOptions
from ..image_names import pick_root
from ..pending_questions import Asked, asked_manifest
from ..records import lacking, read_records, text
from ..tables.answer_options import read_options
from ..tables.notations import UnclearText, UnclearValue
from ..tables.table import answer_type

SPLIT = "test"
REPORT_WORDS = "Generate a medical report"
"""How questions in its report file begin."""
_MIMIC = re.compile(r"^p1\d/p1\d+/s\d+/")


def import_medheval(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read one of MedHEval's JSON files; image names are relative to `--images`, or the file's folder or `images/`.

    Questions about MIMIC-CXR images are credentialed, others public. The answer of a yes/no question is its leading yes
    or no, as in CARES.

    Raises:
        InputError: Records are malformed, or images are missing.
    """
    records = read_records(src, _problem)
    names = [str(record["img_name"]) for record in records]
    root = options.images or pick_root([src.parent, src.parent / "images"], names)
    asked = [_asked(src, record, options) for record in records]
    return asked_manifest(asked, root, f"medheval {src.name}", progress)


def _asked(src: Path, record: dict[str, Any], options: ImportOptions) -> Asked:
    name = str(record["img_name"])
    use: DataUse = "credentialed" if _MIMIC.match(name) else "public"
    options_read = read_options(record.get("choices"), "choices")
    choices = options_read.texts or None
    answer, question = text(record["answer"]), text(record["question"])
    if answer is not None and choices:
        answer = options_read.chosen(answer)
    if "binary" in (record.get("question_type"), record.get("ground_truth_type")):
        answer = stated_answer(answer or "") or answer
    asks_report = (question or "").startswith(REPORT_WORDS) and answer is not None
    row = ManifestRow(
        question_id=f"medheval-{src.stem}-{record['qid']}",
        question=question,
        answer=answer,
        answer_type="report" if asks_report else answer_type(None, answer, choices),
        options=choices,
        split=options.split or SPLIT,
        data_use=options.data_use or use,
        question_type=text(record.get("hallucination_type")) or text(record.get("question_type")),
        modality=text(record.get("modality")),
        organ=text(record.get("location")),
    )
    return Asked(images=(name,), row=row)


def _problem(record: dict[str, Any]) -> str | None:
    missing = lacking(record, ("qid", "img_name", "question", "answer"), nullable=("answer",))
    if missing is not None:
        return missing
    if text(record["question"]) is None:
        return "an empty question"
    try:
        choices = read_options(record.get("choices"), "choices")
        choices.chosen(text(record["answer"]) or "")
    except UnclearText as error:
        return f"choices {error}"
    except UnclearValue as error:
        return str(error)
    return f"choices {record['choices']!r} are not a list of options" if len(choices.texts) == 1 else None
