"""VQA-RAD, PathVQA and SLAKE from the Hugging Face Hub: Parquet with `image`, `question` and `answer`.

The copies have the splits but not the other fields of the releases: yes and no answers are `closed`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from .....progress import Progress
from ...manifest import Manifest
from ..common import ImportOptions
from ..layouts import Layout
from ..pending_questions import Asked, asked_manifest
from ..tables.table import read_questions, table_root
from ..tables.table_files import PARQUET_PATTERNS, hub_files
from .pathvqa import question_type


def hub_layout(name: str, complete: Callable[[Asked], Asked]) -> Layout:
    """The Parquet layout of a data set; `complete` adds constant fields to each question."""
    return Layout(
        name="Hugging Face Parquet",
        markers=PARQUET_PATTERNS,
        run=partial(_import_hub, name, complete),
    )


def _import_hub(
    name: str, complete: Callable[[Asked], Asked], src: Path, options: ImportOptions, progress: Progress
) -> Manifest:
    """Read the files of every split; images are written beside the manifest.

    Raises:
        InputError: Files of a split are missing or unreadable, or columns are missing.
    """
    asked = list(map(complete, read_questions(hub_files(src), options, "public", f"{name}-hub", progress)))
    return asked_manifest(asked, table_root(src, asked, options), f"{name} hub", progress)


def unchanged(asked: Asked) -> Asked:
    return asked


def pathology(asked: Asked) -> Asked:
    """Add PathVQA's modality and question categories."""
    closed = asked.row.answer_type == "closed"
    kind = "yes/no" if closed else question_type(asked.row.question or "")
    return replace(asked, row=replace(asked.row, modality="pathology", question_type=kind))
