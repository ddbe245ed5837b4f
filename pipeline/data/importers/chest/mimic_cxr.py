"""MIMIC-CXR (Johnson et al. 2019): the official JPG tree, split and reports, R2Gen's annotation, CARES's questions."""

from pathlib import Path

from .....errors import InputError
from .....progress import Progress
from ...manifest import Manifest
from ..common import ImportOptions
from .cares import read_yes_no
from .mimic_release import SPLIT_TABLE, read_release
from .reports_and_questions import chest_manifest, image_folder, sources
from .studies import read_annotation

ANNOTATION = "annotation.json"
ANNOTATION_ALL = "mimic_annotation_all.json"
"""R2GenGPT's copy of R2Gen's file."""
QUESTIONS = "mimic_factuality.jsonl"
IMAGE_FOLDERS = ("files", "images", "mimic-cxr-jpg/files", "mimic-cxr-jpg")
"""Image folders of the official release, of R2Gen's archive, and of CARES."""


def import_mimic_cxr(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read from a folder, or from one file: the official split table or R2Gen's annotation.json, and CARES.

    Raises:
        InputError: None of them exists, or both of the first two; records are malformed, or images are missing.
    """
    files = sources(
        src, (SPLIT_TABLE, ANNOTATION, ANNOTATION_ALL, QUESTIONS), "split table, annotation or question file"
    )
    asked = [record for path in files if path.suffix == ".jsonl" for record in read_yes_no(path)]
    annotations = [path for path in files if path.suffix == ".json"]
    tables = [path for path in files if path.suffix not in (".json", ".jsonl")]
    if annotations and tables:
        raise InputError(
            f"{src} has the official split ({tables[0].name}) and R2Gen's ({annotations[0].name}), which differ; "
            "pass one of the two files instead of the folder"
        )
    if len(annotations) > 1:
        raise InputError(f"{src} has {' and '.join(path.name for path in annotations)}; pass one of the two files")
    root = image_folder(files[0].parent, IMAGE_FOLDERS, options)
    studies = [study for path in annotations for study in read_annotation(path)]
    studies += [study for path in tables for study in read_release(path, root, progress)]
    return chest_manifest("mimic-cxr", files, root, studies, asked, "credentialed", options, progress)
