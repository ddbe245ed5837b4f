"""Importers: data sets in the layout they are released in, read into manifests.

`IMPORTERS` is what `medalign data import NAME SRC --out M.parquet` offers; a new data set is one file here and one
entry there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...progress import Progress
from ..manifest import Manifest
from .common import ImportOptions
from .folder import import_folder
from .llava_json import import_llava_json
from .nih_cxr import import_nih_cxr
from .vqa_rad import import_vqa_rad


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """One layout that can be imported."""

    name: str
    reads: str
    """What SRC is, in one line."""
    run: Callable[[Path, ImportOptions, Progress], Manifest]
    unused: tuple[str, ...] = ()
    """Options that mean nothing for this layout."""


IMPORTERS = {
    importer.name: importer
    for importer in (
        Importer(
            name="vqa-rad",
            reads="folder with vqa_rad.json and images/ (or the names of the official release)",
            run=import_vqa_rad,
            unused=("seed",),
        ),
        Importer(
            name="llava-json",
            reads="JSON or JSONL of {id, image, conversations}, as LLaVA-Med's and the paper's training files",
            run=import_llava_json,
            unused=("seed",),
        ),
        Importer(
            name="folder",
            reads="folder of images, searched recursively; no questions",
            run=import_folder,
            unused=("images", "seed"),
        ),
        Importer(
            name="nih-cxr",
            reads="folder with the NIH ChestX-ray14 label table and its images; closed questions from labels",
            run=import_nih_cxr,
        ),
    )
}

__all__ = [
    "IMPORTERS",
    "ImportOptions",
    "Importer",
    "import_folder",
    "import_llava_json",
    "import_nih_cxr",
    "import_vqa_rad",
]
