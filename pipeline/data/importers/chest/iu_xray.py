"""IU X-Ray (Demner-Fushman et al. 2016): reports as prepared and split by R2Gen, yes/no questions of CARES."""

from pathlib import Path

from .....progress import Progress
from ...manifest import Manifest
from ..common import ImportOptions
from .cares import read_yes_no
from .reports_and_questions import chest_manifest, image_folder, sources
from .studies import read_annotation

ANNOTATION = "annotation.json"
QUESTIONS = "iuxray_factuality.jsonl"
NESTED = "iu_xray"
"""The folder in R2Gen's archive."""


def import_iu_xray(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read reports, yes/no questions, or both, from a folder with their files, or from one of these files.

    Questions take the split of their image from annotation.json if it exists; else `test`, which CARES used.

    Raises:
        InputError: Neither file exists, records are malformed, or images are missing.
    """
    src = src / NESTED if (src / NESTED).is_dir() else src
    files = sources(src, (ANNOTATION, QUESTIONS), "annotation or question file")
    root = image_folder(files[0].parent, ("images", f"{NESTED}/images"), options)
    studies = [study for path in files if path.suffix == ".json" for study in read_annotation(path)]
    asked = [record for path in files if path.suffix == ".jsonl" for record in read_yes_no(path)]
    return chest_manifest("iu-xray", files, root, studies, asked, "public", options, progress)
