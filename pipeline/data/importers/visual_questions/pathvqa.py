"""PathVQA (He et al. 2020, arXiv 2003.10286): pathology images from two textbooks and a library, with its three splits.

Questions are pickled lists of `{image, question, answer}`. A pickle can contain any code, so they are read by an
unpickler that accepts only lists, dictionaries, text and numbers.
"""

import pickle
import re
from pathlib import Path
from typing import Any

from .....errors import InputError
from .....plain_text import kind_of
from .....progress import Progress
from ...manifest import Manifest, ManifestRow
from ..common import ImageColumns, ImportOptions, finished, first_existing, read_images, unasked_rows
from ..image_folders.image_files import listed_images
from ..json_faults import find_fault
from ..records import check_records, lacking, text

SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Split folders of the release -> split names in manifests."""
NESTED = ("pvqa", "split")
"""Names of the folder with images/ and qas/, in the authors' two copies."""
QUESTION_TYPES = ("how much", "how many", "what", "where", "when", "whose", "how")
"""First words of the paper's question categories, longest first; the seventh category is yes/no."""


class _PlainUnpickler(pickle.Unpickler):
    """Accepts containers, text and numbers; rejects everything that names a class or function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, but question files may contain only plain values")


def import_pathvqa(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read PathVQA with its three splits; closed questions are those answered yes or no.

    An image without a question becomes a row without a question, so that stage one extracts it too.

    Raises:
        InputError: The layout is unknown, records are malformed, or images are missing.
    """
    src = next((src / name for name in NESTED if (src / name / "qas").is_dir()), src)
    questions = first_existing(src, ["qas"], "question folder")
    root = options.images or first_existing(src, ["images"], "image folder")
    asked = [(split, record) for split in SPLITS for record in _read_split(questions, split, progress)]
    names = [f"{split}/{record['image']}.jpg" for split, record in asked]
    unasked = sorted(set(listed_images(root, [".jpg"])) - set(names))
    found = read_images(root, names + unasked, progress)
    rows = [
        _row(number, split, record, found.columns[name], options)
        for number, ((split, record), name) in enumerate(zip(asked, names, strict=True))
        if name in found.columns
    ]
    rows += unasked_rows(unasked, found, options.data_use or "public", progress)
    return finished(rows, root, "pathvqa", found.unreadable, progress)


def _row(number: int, split: str, record: dict[str, Any], image: ImageColumns, options: ImportOptions) -> ManifestRow:
    question, answer = text(record["question"]), text(record["answer"])
    closed = (answer or "").casefold().rstrip(".") in ("yes", "no")
    return ManifestRow(
        question_id=f"pathvqa-{number}",
        question=question,
        answer=answer,
        answer_type="closed" if closed else "open",
        split=options.split or SPLITS[split],
        data_use=options.data_use or "public",
        question_type="yes/no" if closed else question_type(question or ""),
        modality="pathology",
        **image,
    )


def question_type(question: str) -> str:
    """The paper's category of an open question, by its first words; else `other`."""
    opening = re.sub(r"\W+", " ", question.casefold()).strip()
    return next((kind for kind in QUESTION_TYPES if f"{opening} ".startswith(f"{kind} ")), "other")


def _read_split(questions: Path, split: str, progress: Progress) -> list[dict[str, Any]]:
    path = questions / split / f"{split}_qa.pkl"
    if not path.is_file():
        progress.note(f"no questions for {split}: {path} does not exist")
        return []
    records = read_plain_pickle(path)
    if not isinstance(records, list):
        raise InputError(f"{path} contains {kind_of(records)}, not a list of questions")
    keys = ("image", "question", "answer")
    check_records(records, path, lambda record: lacking(record, keys, nullable=("answer",)) or find_fault(record))
    return records


def read_plain_pickle(path: Path) -> object:
    """Read a pickle of plain values.

    Raises:
        InputError: It is not one.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(f"{path} is not a pickle of plain values: {error}") from error
