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
from .iu_xray import import_iu_xray
from .llava_json import import_llava_json
from .mimic_cxr import import_mimic_cxr
from .nih_cxr import import_nih_cxr
from .omnimedvqa import import_omnimedvqa
from .pathvqa import import_pathvqa
from .slake import import_slake
from .vqa_rad import import_vqa_rad


@dataclass(frozen=True, kw_only=True, slots=True)
class Importer:
    """One layout that can be imported."""

    name: str
    reads: str
    """What SRC is, in one line."""
    run: Callable[[Path, ImportOptions, Progress], Manifest]
    uses: tuple[str, ...] = ()
    """Which of the options `images`, `seed` and `language` mean something for this layout."""
    published_split: bool = True
    """Whether its questions come with a split; where not, one can be drawn (`--split train=0.8,test=0.2`)."""


IMPORTERS = {
    importer.name: importer
    for importer in (
        Importer(
            name="vqa-rad",
            reads="folder with vqa_rad.json and images/ (or the names of the official release)",
            run=import_vqa_rad,
            uses=("images",),
        ),
        Importer(
            name="slake",
            reads="folder with train.json, validate.json, test.json, mask.txt and imgs/; its masks and boxes are kept",
            run=import_slake,
            uses=("images", "language"),
        ),
        Importer(
            name="pathvqa",
            reads="folder with qas/train/train_qa.pkl and the like, and images/train/ and the like",
            run=import_pathvqa,
            uses=("images",),
        ),
        Importer(
            name="omnimedvqa",
            reads="folder with QA_information/ and Images/; multiple choice",
            run=import_omnimedvqa,
            uses=("images",),
            published_split=False,
        ),
        Importer(
            name="iu-xray",
            reads="folder with R2Gen's annotation.json, CARES's iuxray_factuality.jsonl or both, and images/",
            run=import_iu_xray,
            uses=("images",),
        ),
        Importer(
            name="mimic-cxr",
            reads="MIMIC-CXR-JPG's folder with split table and reports, or R2Gen's annotation.json, or CARES's file",
            run=import_mimic_cxr,
            uses=("images",),
        ),
        Importer(
            name="llava-json",
            reads="JSON or JSONL of {id, image, conversations}, as LLaVA-Med's and the paper's training files",
            run=import_llava_json,
            uses=("images",),
            published_split=False,
        ),
        Importer(
            name="folder",
            reads="folder of images, searched recursively; no questions",
            run=import_folder,
        ),
        Importer(
            name="nih-cxr",
            reads="folder with the NIH ChestX-ray14 label table and its images; closed questions from labels",
            run=import_nih_cxr,
            uses=("images", "seed"),
        ),
    )
}

__all__ = [
    "IMPORTERS",
    "ImportOptions",
    "Importer",
    "import_folder",
    "import_iu_xray",
    "import_llava_json",
    "import_mimic_cxr",
    "import_nih_cxr",
    "import_omnimedvqa",
    "import_pathvqa",
    "import_slake",
    "import_vqa_rad",
]
