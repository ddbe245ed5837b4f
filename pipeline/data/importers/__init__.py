"""Importers: read data sets in their published layouts into manifests.

`IMPORTERS` lists what `medalign data import NAME SRC --out M.parquet` accepts. A new layout is one function and one
entry there.
"""

from .chest.iu_tables import PROJECTIONS, REPORTS, import_iu_kaggle, import_iu_openi
from .chest.iu_xray import import_iu_xray
from .chest.mimic_cxr import import_mimic_cxr
from .chest.nih_cxr import TABLE_NAMES, import_nih_cxr
from .common import ImportOptions
from .image_folders.folder import import_folder
from .layouts import Importer, Layout, find_layout, listed_layouts
from .tables.table import import_table
from .tables.table_files import METADATA_NAMES, PARQUET_PATTERNS
from .tables.table_folder import import_image_folder
from .visual_questions.hub import hub_layout, pathology, unchanged
from .visual_questions.llava_json import import_llava_json
from .visual_questions.medheval import import_medheval
from .visual_questions.omnimedvqa import import_omnimedvqa
from .visual_questions.pathvqa import import_pathvqa
from .visual_questions.slake import import_slake
from .visual_questions.vqa_rad import import_mevf_rad, import_vqa_rad

_METADATA = tuple(pattern for name in METADATA_NAMES for pattern in (name, f"*/{name}"))
_JSON_FILES = ("*.json", "*.jsonl")
_TABLE_USES = ("images", "column")

IMPORTERS = {
    importer.name: importer
    for importer in (
        Importer(
            name="vqa-rad",
            layouts=(
                Layout(
                    name="the official release",
                    markers=("vqa_rad.json", "VQA_RAD Dataset Public.json"),
                    run=import_vqa_rad,
                ),
                Layout(
                    name="MEVF's preparation",
                    markers=("trainset.json", "testset.json", "data_RAD/trainset.json"),
                    run=import_mevf_rad,
                ),
                hub_layout("vqa-rad", unchanged),
            ),
        ),
        Importer(
            name="slake",
            layouts=(
                Layout(
                    name="the release with imgs/ or imgs.zip; masks and boxes are kept",
                    markers=tuple(
                        f"{folder}{name}.json"
                        for folder in ("", "Slake1.0/")
                        for name in ("train", "validate", "validation", "test")
                    ),
                    run=import_slake,
                    uses=("images", "language"),
                ),
                hub_layout("slake", unchanged),
            ),
        ),
        Importer(
            name="pathvqa",
            layouts=(
                Layout(
                    name="the release, pickled",
                    markers=tuple(f"{folder}qas/*/*_qa.pkl" for folder in ("", "pvqa/", "split/")),
                    run=import_pathvqa,
                ),
                hub_layout("pathvqa", pathology),
            ),
        ),
        Importer(
            name="omnimedvqa",
            layouts=(
                Layout(
                    name="the release, whole or in part; multiple choice",
                    markers=tuple(
                        f"{folder}QA_information/{access}/*.json"
                        for folder in ("", "OmniMedVQA/")
                        for access in ("Open-access", "Restricted-access")
                    ),
                    run=import_omnimedvqa,
                    published_split=False,
                ),
            ),
        ),
        Importer(
            name="iu-xray",
            layouts=(
                Layout(
                    name="R2Gen's annotation, CARES's questions, or both",
                    markers=tuple(
                        f"{folder}{name}"
                        for folder in ("", "iu_xray/")
                        for name in ("annotation.json", "iuxray_factuality.jsonl")
                    ),
                    files=_JSON_FILES,
                    run=import_iu_xray,
                ),
                Layout(
                    name="Kaggle's tables", markers=(REPORTS, PROJECTIONS), run=import_iu_kaggle, published_split=False
                ),
                Layout(
                    name="OpenI's XML reports",
                    markers=("ecgen-radiology/*.xml", "*.xml"),
                    run=import_iu_openi,
                    published_split=False,
                ),
            ),
        ),
        Importer(
            name="mimic-cxr",
            layouts=(
                Layout(
                    name="MIMIC-CXR-JPG with its split table and reports",
                    markers=("mimic-cxr-2.*-split.csv*",),
                    run=import_mimic_cxr,
                ),
                Layout(
                    name="R2Gen's or R2GenGPT's annotation",
                    markers=("annotation.json", "mimic_annotation_all.json"),
                    files=("*.json",),
                    run=import_mimic_cxr,
                ),
                Layout(
                    name="CARES's questions",
                    markers=("mimic_factuality.jsonl",),
                    files=("*.jsonl",),
                    run=import_mimic_cxr,
                ),
            ),
        ),
        Importer(
            name="medheval",
            layouts=(Layout(name="one of MedHEval's JSON files", markers=(), files=("*.json",), run=import_medheval),),
        ),
        Importer(
            name="llava-json",
            layouts=(
                Layout(
                    name="JSON or JSONL of {id, image, conversations}, or of LLaVA-Med's {question_id, image, text}",
                    markers=(),
                    run=import_llava_json,
                    published_split=False,
                ),
            ),
        ),
        Importer(
            name="table",
            layouts=(
                Layout(
                    name="CSV, TSV, Parquet, JSON or JSONL with a question, an answer and an image per row",
                    markers=(*_METADATA, *PARQUET_PATTERNS),
                    files=("*",),
                    run=import_table,
                    uses=_TABLE_USES,
                    published_split=False,
                ),
            ),
        ),
        Importer(
            name="folder",
            layouts=(
                Layout(
                    name="images with metadata.csv, as Hugging Face's image folders",
                    markers=_METADATA,
                    run=import_image_folder,
                    uses=("column",),
                    published_split=False,
                ),
                Layout(
                    name="any folder of images, searched recursively; no questions",
                    markers=(),
                    run=import_folder,
                    uses=(),
                ),
            ),
        ),
        Importer(
            name="nih-cxr",
            layouts=(
                Layout(
                    name="ChestX-ray14's label table and images; closed questions from labels",
                    markers=TABLE_NAMES,
                    run=import_nih_cxr,
                    uses=("images", "seed"),
                ),
            ),
        ),
    )
}

__all__ = [
    "IMPORTERS",
    "ImportOptions",
    "Importer",
    "Layout",
    "find_layout",
    "import_folder",
    "import_iu_kaggle",
    "import_iu_openi",
    "import_iu_xray",
    "import_llava_json",
    "import_medheval",
    "import_mevf_rad",
    "import_mimic_cxr",
    "import_nih_cxr",
    "import_omnimedvqa",
    "import_pathvqa",
    "import_slake",
    "import_table",
    "import_vqa_rad",
    "listed_layouts",
]
