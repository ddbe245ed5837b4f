"""A folder of phantoms: images, masks, and a manifest of questions."""

from pathlib import Path

import numpy as np
from PIL import Image

from ....atomic import sync_tree
from ....errors import InputError
from ....progress import Progress
from ....teacher_cache.images import image_hash as hash_bytes
from ....teacher_cache.images import read_image
from ..import_manifest import ManifestReport
from ..manifest import Manifest, ManifestRow
from ..mask_hashes import with_mask_hashes
from .draw import draw_phantom
from .phantom import Phantom
from .phantom_masks import regions_of, save_masks
from .phantom_questions import ask

SPLITS = (("train", 0.6), ("validation", 0.1), ("test", 0.3))
"""Fraction of the images in each split, in this order along the series; splits are disjoint."""
ANCHORS_SPLIT = "anchors"
"""Split of the images that are drawn without a shift after the others."""


def make_phantoms(
    out: Path, images: int, seed: int, progress: Progress, *, shift: float = 0.0, anchors: int = 0
) -> ManifestReport:
    """Draw `images` phantoms into `out`: images/, masks/ and manifest.parquet.

    `shift` is the share of another look (`draw_phantom`) in these images; `anchors` more images without a shift
    follow in a split of their own.

    Raises:
        InputError: `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: pass another --out")
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True)
    progress.start("drawing phantoms", images + anchors)
    rows: list[ManifestRow] = []
    for index in range(images + anchors):
        is_anchor = index >= images
        phantom = draw_phantom(seed, index, shift=0.0 if is_anchor else shift)
        rows += _write(phantom, out, index, ANCHORS_SPLIT if is_anchor else _split(index, images), seed)
        progress.advance()
    source = f"phantoms seed={seed}" + (f" shift={shift:g}" if shift else "")
    manifest = with_mask_hashes(Manifest.from_rows(rows, out, source), progress)
    sync_tree(out)
    path = out / "manifest.parquet"
    manifest.write(path)
    return ManifestReport(path=path, manifest=manifest)


def _write(phantom: Phantom, out: Path, index: int, split: str, seed: int) -> list[ManifestRow]:
    name = f"{index:05d}"
    path = out / "images" / f"{name}.png"
    Image.fromarray(phantom.pixels).save(path)
    save_masks(phantom, out / "masks", name)
    decoded = read_image(path)
    questions = ask(phantom, np.random.default_rng([seed, index, 1]))
    regions = regions_of(phantom, f"masks/{name}")
    return [
        ManifestRow(
            image=f"images/{name}.png",
            image_hash=hash_bytes(path.read_bytes()),
            pixel_hash=decoded.pixel_hash,
            width=decoded.width,
            height=decoded.height,
            question_id=f"{name}-{number}",
            question=question.question,
            answer=question.answer,
            answer_type=question.answer_type,
            split=split,
            data_use="public",
            question_type=question.question_type,
            modality=phantom.modality,
            organ=question.organ,
            regions=regions,
        )
        for number, question in enumerate(questions)
    ]


def _split(index: int, images: int) -> str:
    """The split of image `index` of `images`."""
    position = (index + 0.5) / images
    for name, share in SPLITS:
        if position < share:
            return name
        position -= share
    return SPLITS[-1][0]
