"""The packages and upstream weights that `medalign doctor` looks for, and how it recognizes weights."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEARCH_DEPTH = 3
"""Depth of the search below the weights folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionalPart:
    """An optional package."""

    package: str
    purpose: str
    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Upstream weights: a file recognized by name, or a model folder recognized by its config."""

    name: str
    file: str
    """The file name; for a folder, that of its config."""
    architecture: str | None = None
    """The required entry in the config's `architectures`; `None`: the file name is enough."""
    hub_id: str | None = None
    purpose: str
    source: str


NEEDED_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "accelerate",
    "open_clip_torch",
    "huggingface_hub",
    "safetensors",
    "sentencepiece",
    "protobuf",
    "cryptography",
    "zarr",
    "numcodecs",
    "crc32c",
    "pyarrow",
    "polars",
    "pydantic",
    "packaging",
    "tenacity",
    "pyyaml",
    "pillow",
    "numpy",
    "pydicom",
    "tifffile",
    "imagecodecs",
    "jaxtyping",
    "nltk",
    "rouge-score",
    "sacrebleu",
    "matplotlib",
    "jinja2",
    "scikit-learn",
    "typer",
    "rich",
)

OPTIONAL_PARTS = (
    OptionalPart(
        package="gguf",
        purpose="`medalign student init` from a GGUF language model",
        how="pip install 'medalign[gguf]'",
    ),
    OptionalPart(
        package="bitsandbytes",
        purpose="training on a base in 4 or 8 bits: `student.quantization`",
        how="pip install bitsandbytes",
    ),
    OptionalPart(
        package="ray",
        purpose="many GPUs or machines: `--engine ray` of `teacher extract`, `student evaluate`, `compare`, `ground`",
        how="pip install 'medalign[ray]'",
    ),
    OptionalPart(
        package="pylibjpeg-libjpeg",
        purpose="DICOM in lossless JPEG, JPEG-LS and 12-bit JPEG; other DICOM does not need it",
        how="pip install 'medalign[dicom]'",
    ),
    OptionalPart(
        package="radgraph",
        purpose="report metrics; not used by this version",
        how="pip install radgraph",
    ),
)

WEIGHTS = (
    Weights(
        name="UniMed-CLIP ViT-L/14",
        file="unimed_clip_vit_l14_base_text_encoder.pt",
        purpose="teacher unimed-l14-336, the paper's main one",
        source="table of pretrained models in https://github.com/mbzuai-oryx/UniMed-CLIP",
    ),
    Weights(
        name="UniMed-CLIP ViT-B/16",
        file="unimed-clip-vit-b16.pt",
        purpose="teacher unimed-b16-224",
        source="table of pretrained models in https://github.com/mbzuai-oryx/UniMed-CLIP",
    ),
    Weights(
        name="BiomedCLIP",
        file="open_clip_config.json",
        hub_id="microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        purpose="teacher biomedclip-b16-224",
        source="https://huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    ),
    Weights(
        name="LLaVA-Med-1.5",
        file="config.json",
        architecture="LlavaMistralForCausalLM",
        hub_id="microsoft/llava-med-v1.5-mistral-7b",
        purpose="the paper's first student",
        source="https://huggingface.co/microsoft/llava-med-v1.5-mistral-7b",
    ),
    Weights(
        name="HuatuoGPT-Vision-7B",
        file="config.json",
        architecture="LlavaQwen2ForCausalLM",
        hub_id="FreedomIntelligence/HuatuoGPT-Vision-7B",
        purpose="the paper's second student",
        source="https://huggingface.co/FreedomIntelligence/HuatuoGPT-Vision-7B",
    ),
)


def find_weights(weights: Weights, folder: Path | None, cache: Path) -> str | None:
    """Find weights in the weights folder (a file, or the folder of a config), else in the Hub's cache."""
    if folder is not None:
        for path in _files_named(folder, weights.file):
            if weights.architecture is None:
                return str(path.parent if weights.hub_id else path)
            if weights.architecture in _architectures(path):
                return str(path.parent)
    if weights.hub_id is not None:
        snapshots = cache / f"models--{weights.hub_id.replace('/', '--')}" / "snapshots"
        for config in sorted(snapshots.glob(f"*/{weights.file}")):
            return str(config.parent)
    return None


def _files_named(folder: Path, name: str) -> Iterator[Path]:
    """Files with this name at most `SEARCH_DEPTH` folders deep, the shallow ones of each branch first."""
    for place, subfolders, files in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= SEARCH_DEPTH:
            subfolders.clear()
        subfolders.sort()
        if name in files:
            yield Path(place) / name


def _architectures(config: Path) -> list[str]:
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError, AttributeError):
        return []
    return found if isinstance(found, list) else []
