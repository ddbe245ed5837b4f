"""README.md of a store: its content, how it was created, who may have it, and how to check, read and cite it.

The card is a pure function of the header, the counts and the root digest. It contains no date, host or person, so equal
stores have equal cards.
"""

import re
from typing import Final

import numpy as np

from ....choices import DataUse
from ..format.header import StoreHeader
from .markdown import markdown_text, one_line

NOT_STATED: Final = "not stated"

DATA_USE_MEANING: Final[dict[DataUse, str]] = {
    "public": "the images are public; the store may be passed on under the images' own licence",
    "credentialed": "the images need a signed data-use agreement; what is derived from them, this store included, may "
    "go only to people who have signed the same agreement",
    "private": "the images may not leave their owner; neither may this store",
}

WHY_FEATURES_ARE_DATA: Final = (
    "Patch features are not anonymous: images can be reconstructed from them in part (feature inversion), and a plain "
    "SHA-256 lets anyone who holds an image confirm that it is in the store."
)

_HUB_LICENSES: Final = frozenset(
    [
        "apache-2.0",
        "bsd-3-clause",
        "cc",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-2.0",
        "mit",
        "odc-by",
        "odbl",
        "pddl",
    ]
)
"""Licenses of data that the Hugging Face Hub knows by these names (hf.co/docs/hub/repositories-licenses)."""
_SIZES: Final = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (float("inf"), "100M<n<1B"),
)
"""Number of images below which a store is in one of the Hub's size categories."""

_CARD = """\
# {title}

Patch features and attention of a CLIP teacher for {images} images, as training targets for vision-language students.
The store holds no image, no file name, no path and no patient id.

| | |
| --- | --- |
| data use | **{data_use}**: {data_use_meaning} |
| licence | {licence} |
| teacher | {teacher} |
| teacher's weights, SHA-256 | `{weights}` |
| features | {features}, {channels} channels, computed in {dtype} |
| the teacher saw | {image_size} x {image_size} pixels, geometry `{geometry}`, mean {mean}, std {std} |
| patch grid | {native_grid} of the teacher, read as {grid} ({interpolation}) |
| JPEG files | decoded at {jpeg_scale} size |
| profile | `{profile}`{tolerance} |
| images | {images} with a row, {failures} that could not be used (`failures.parquet` says why) |
| image keys | {hashing} |
| fingerprint | `{fingerprint}` |
| root digest | `{root}` |
| format | medalign teacher store, version {version}; made by {created_by} |

## What is in it

{arrays}

`index.parquet` says which row belongs to which image. Shards that needed more precision lie below `wide/`.
E_a is raw attention and is not normalised.

## Before you pass it on

{why} {sharing}

## Check it

    sha256sum --check --quiet manifest-sha256.txt    # every file, inside the store's folder
    medalign store verify STORE                      # every row, every checksum, the root digest

Two stores with the same root digest hold the same rows for the same images and say the same about them. This file can
be forged like any other: compare the root digest that `verify` recomputes with the one that the store's makers publish,
or have the signature checked with their public key (`medalign store verify STORE --signed-by PUBKEY`).

## Read it

    from medalign.teacher_cache.store import open_store
    targets = open_store("STORE").read([IMAGE_HASH])

The arrays are standard Zarr v3: `zarr.open_group("STORE", mode="r")` reads them too. `croissant.json` describes the
files for other tools, and medalign's docs/store-format.md describes every byte.

## Cite it

Cite the teacher ({teacher}, the weights above), the owner of the images as their licence asks, and the method:

> Chang, Wang, Ma: Enhancing Medical Large Vision-Language Models via Alignment Distillation. arXiv:2512.18554 (2025).

The store was made with medalign, an independent implementation of that paper. Name this store by its root digest.
"""

_SHARING: Final[dict[DataUse, str]] = {
    "public": "The images of this store are public, so this adds nothing to what is known.",
    "credentialed": "Share it only as you may share the images: on systems and with people under the same agreement.",
    "private": "Treat it exactly as the images themselves.",
}


def render_card(header: StoreHeader, *, images: int, failures: int, root_sha256: str) -> str:
    """Render the data card of a finished store with `images` rows and `failures` images without a row.

    It begins with metadata for the Hugging Face Hub in YAML; `without_metadata` returns the rest.
    """
    return _metadata(header, images) + _CARD.format(
        title=markdown_text(title_of(header)),
        images=images,
        failures=failures,
        data_use=header.data_use,
        data_use_meaning=DATA_USE_MEANING[header.data_use],
        licence=markdown_text(header.licence) or NOT_STATED,
        teacher=markdown_text(header.teacher),
        weights=header.weights_sha256,
        features=header.features,
        channels=header.width,
        dtype=header.dtype,
        image_size=header.image_size,
        geometry=header.geometry,
        mean=_numbers(header.mean),
        std=_numbers(header.std),
        native_grid=header.native_grid,
        grid=header.grid,
        interpolation=header.interpolation,
        jpeg_scale=header.jpeg_scale,
        profile=header.profile,
        tolerance=_tolerance(header),
        hashing=_hashing(header),
        fingerprint=header.fingerprint,
        root=root_sha256,
        version=header.format_version,
        created_by=markdown_text(header.created_by),
        arrays=_arrays(header),
        why=WHY_FEATURES_ARE_DATA,
        sharing=_SHARING[header.data_use],
    )


def without_metadata(card: str) -> str:
    """A card without its metadata, as earlier versions wrote it."""
    return card.partition("\n---\n\n")[2] if card.startswith("---\n") else card


def _metadata(header: StoreHeader, images: int) -> str:
    """Metadata for the Hugging Face Hub, which knows some licenses by name; others are `other`, with their own name."""
    from huggingface_hub import DatasetCardData  # slow to import

    licence = re.sub(r"[^a-z0-9.]+", "-", one_line(header.licence).lower()).strip("-.")
    is_known = not licence or licence in _HUB_LICENSES
    metadata = DatasetCardData(
        license=(licence or "unknown") if is_known else "other",
        license_name=None if is_known else licence,
        pretty_name=title_of(header),
        size_categories=next(name for most, name in _SIZES if images < most),
        task_categories=["image-feature-extraction"],
        tags=["medalign", "medical", "clip", "zarr"],
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n"


def title_of(header: StoreHeader) -> str:
    """The store's title on one line, or a default title."""
    return one_line(header.title) or f"Teacher store of {one_line(header.teacher)}"


def _arrays(header: StoreHeader) -> str:
    lines = ["| array | one row | stored as |", "| --- | --- | --- |"]
    for array in header.arrays(header.profile):
        axes = " x ".join(f"{size} {name}" for name, size in zip(array.axes, array.shape, strict=True))
        lines.append(f"| `{array.name}/` | {axes} | {np.dtype(array.dtype).name} |")
    return "\n".join(lines)


def _tolerance(header: StoreHeader) -> str:
    if header.tolerance is None:
        return ""
    return f"; max|dS| of every row is at most {header.tolerance:g}"


def _hashing(header: StoreHeader) -> str:
    if header.hashing == "sha256":
        return "SHA-256 of the image file"
    return f"HMAC-SHA256 under the owner's secret key ({header.hashing.partition(':')[2]})"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
