"""croissant.json of a store: Croissant 1.1 metadata (JSON-LD), which describes the files to data set tools.

It uses the vocabulary of https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. A store does not know where
or when it is published: `url` is its own folder, and the publisher adds `datePublished`.
"""

import json
from typing import Any, Final

from ....choices import Profile
from ..file_names import FAILURES_FILE, INDEX_FILE, LEDGER_FOLDER
from ..format.header import StoreHeader
from ..format.profiles import ArraySpec
from .markdown import markdown_text, one_line
from .store_card import DATA_USE_MEANING, NOT_STATED, title_of

CONFORMS_TO: Final = "http://mlcommons.org/croissant/1.1"

INDEX_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "image_hash": ("sc:Text", "SHA-256 of the image file, or its HMAC under the owner's key; hex"),
    "pixel_hash": ("sc:Text", "digest of the decoded, upright image, keyed likewise; hex"),
    "row": ("sc:Integer", "row of this image in the arrays"),
    "width": ("sc:Integer", "width of the upright image, pixels"),
    "height": ("sc:Integer", "height of the upright image, pixels"),
    "max_abs_dS": ("sc:Float", "largest change of any patch cosine by the way the row is stored"),
    "crc32c": ("sc:Integer", "crc32c over the checksums of the row's chunks"),
    "sha256": ("sc:Text", "SHA-256 of the row's stored values; hex"),
}
"""Column of index.parquet -> (data type, description)."""

_PARQUET = "application/x-parquet"
_RECORDS = "images"
_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
)
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
"""All terms of the specification's context, used here or not, because validators report any other context."""

_CITE: Final = (
    "@article{chang2025medalign, title={Enhancing Medical Large Vision-Language Models via Alignment Distillation}, "
    "author={Chang, Aofei and Wang, Ting and Ma, Fenglong}, journal={arXiv preprint arXiv:2512.18554}, year={2025}}"
)


def render_croissant(header: StoreHeader, *, images: int, failures: int, root_sha256: str, index_sha256: str) -> str:
    """Describe a finished store; `index_sha256` is the digest of its index.parquet."""
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": title_of(header),
        "description": _description(header, images, failures, root_sha256),
        "url": "./",
        "license": one_line(header.licence) or NOT_STATED,
        "creator": {"@type": "sc:Organization", "name": f"{NOT_STATED}; made with {one_line(header.created_by)}"},
        "version": f"{header.format_version}.0.0",
        "identifier": f"sha256:{root_sha256}",
        "keywords": ["medical imaging", "CLIP", "patch features", "knowledge distillation", one_line(header.teacher)],
        "usageInfo": f"{header.data_use}: {DATA_USE_MEANING[header.data_use]}",
        "isLiveDataset": False,
        "citeAs": _CITE,
        "distribution": [_index_file(index_sha256), *_file_sets(header)],
        "recordSet": [_index_records()],
    }
    return _escape_html(json.dumps(content, indent=1, ensure_ascii=False)) + "\n"


def _escape_html(text: str) -> str:
    """Escape HTML in JSON, so that it is safe in a script element of a web page; the values do not change."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _description(header: StoreHeader, images: int, failures: int, root_sha256: str) -> str:
    return (
        f"Patch features and attention of the teacher {markdown_text(header.teacher)} "
        f"(weights {header.weights_sha256}) for {images} images ({failures} more could not be used), grid "
        f"{header.grid}, profile {header.profile}: a Zarr v3 group with an index keyed by image hash. Root digest "
        f"{root_sha256}."
    )


def _index_file(index_sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": INDEX_FILE,
        "name": INDEX_FILE,
        "description": "One line for each image that has a row.",
        "contentUrl": INDEX_FILE,
        "encodingFormat": _PARQUET,
        "sha256": index_sha256,
    }


def _file_sets(header: StoreHeader) -> list[dict[str, Any]]:
    shards = "application/octet-stream"
    arrays = {
        array.name: (shards, _shards(header, header.profile, array), f"Zarr v3 shards of {array.name}")
        for array in header.arrays()
    }
    wide = [_shards(header, profile, array) for profile in header.profiles[1:] for array in header.arrays(profile)]
    others = {
        "zarr-metadata": (
            "application/json",
            "**/zarr.json",
            "Zarr v3 metadata; the header is in the root's attributes",
        ),
        "ledger": ("application/json", f"{LEDGER_FOLDER}/*.json", "digests of every shard and row"),
        "failures": (_PARQUET, FAILURES_FILE, "images that could not be used, and why"),
        **({"wide-shards": (shards, wide, "shards that needed a wider profile; often none")} if wide else {}),
    }
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": description,
            "encodingFormat": encoding,
            "includes": pattern,
        }
        for name, (encoding, pattern, description) in {**arrays, **others}.items()
    ]


def _shards(header: StoreHeader, profile: Profile, array: ArraySpec) -> str:
    """Glob pattern of the shard files of an array."""
    return "/".join([header.array_key(profile, array), "c", "*", *("0" for _ in array.shape)])


def _index_records() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{_RECORDS}/{name}",
            "name": name,
            "description": description,
            "dataType": data_type,
            "source": {"fileObject": {"@id": INDEX_FILE}, "extract": {"column": name}},
        }
        for name, (data_type, description) in INDEX_COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": _RECORDS,
        "name": _RECORDS,
        "description": "Which row of the arrays belongs to which image.",
        "key": {"@id": f"{_RECORDS}/image_hash"},
        "field": fields,
    }
