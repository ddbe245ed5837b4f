"""The images of `student align`: targets and anchors from manifests, and which of them are only measured."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ...errors import InputError
from ...plain_text import counted
from ...student.inputs.collation import SampleImage
from ...student.translation.preparation import ImageSets
from ...teacher_cache.sharing.data_use_gate import strictest
from ..data.image_hashing import misplaced_images
from ..data.manifest import DataUse, Manifest
from .align_settings import AlignDataSettings


def read_image_sets(data: AlignDataSettings, seed: int) -> tuple[ImageSets, DataUse]:
    """The images of a run, and the strictest data-use class of their manifests.

    Raises:
        InputError: A split or an image is missing, an image is both target and anchor, or there are too few.
    """
    targets, target_use = _read("targets", data.targets, data.targets_split, data.targets_root)
    anchors, anchor_use = _read("anchors", data.anchors, data.anchors_split, data.anchors_root)
    _check_disjoint(data, targets, anchors)
    training, held_targets = _hold_out("targets", targets, data.held_out, 2 * seed)
    fitted, held_anchors = _hold_out("anchors", anchors, data.held_out, 2 * seed + 1)
    sets = ImageSets(targets=training, held_out_targets=held_targets, anchors=fitted, held_out_anchors=held_anchors)
    return sets, strictest([target_use, anchor_use])


def digest_images(*lists: Sequence[SampleImage]) -> str:
    """SHA-256 of the image hashes of lists, in order."""
    digest = hashlib.sha256()
    for images in lists:
        digest.update(json.dumps([image.image_hash for image in images]).encode())
    return digest.hexdigest()


def _read(kind: str, path: Path, split: str | None, root: Path | None) -> tuple[list[SampleImage], DataUse]:
    """The distinct images of a manifest or of one split, in order, and their data-use class.

    Of files with equal pixels it has only the first, because a copy of a fitted image among those that are held out
    would measure what was fitted.
    """
    manifest = read_manifest(path, split, root)
    rows = manifest.images()
    pixels = rows["pixel_hash"]
    rows = rows.filter(pixels.is_null() | pixels.is_first_distinct())
    images = [
        SampleImage(path=manifest.path_of(row["image"]), image_hash=row["image_hash"], pixel_hash=row["pixel_hash"])
        for row in rows.iter_rows(named=True)
    ]
    missing = sorted({image.path for image in images if not image.path.is_file()})
    if missing:
        raise misplaced_images(missing, len(images), manifest.root, f"set data.{kind}_root to their new root")
    return images, manifest.data_use


def read_manifest(path: Path, split: str | None, root: Path | None) -> Manifest:
    """A manifest, or one split of it.

    Raises:
        InputError: It cannot be read, or has no such split.
    """
    manifest = Manifest.read(path, root)
    return manifest if split is None else manifest.split(split)


def _check_disjoint(data: AlignDataSettings, targets: Sequence[SampleImage], anchors: Sequence[SampleImage]) -> None:
    """An image cannot both keep its tokens and get others."""
    known = {image.image_hash for image in anchors} | {image.pixel_hash for image in anchors if image.pixel_hash}
    both = [image for image in targets if image.image_hash in known or image.pixel_hash in known]
    if both:
        raise InputError(
            f"{len(both)} of {len(targets)} target images are anchors too ({data.targets} and {data.anchors}); first: "
            f"{both[0].path.name}. An anchor keeps its tokens and a target gets new ones: use different splits "
            "(data.targets_split, data.anchors_split) or manifests"
        )


def _hold_out(
    kind: str, images: Sequence[SampleImage], share: float, seed: int
) -> tuple[list[SampleImage], list[SampleImage]]:
    """Divide images at random into those that are used and those that are only measured, in their order."""
    held = max(2, round(share * len(images)))
    if len(images) - held < 2:
        raise InputError(
            f"there {'is' if len(images) == 1 else 'are'} {counted(len(images), 'image')} in data.{kind}, of which "
            f"{held} would be held out (data.held_out {share:g}): at least 4 are needed, 2 of them to measure"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    measured = set(order[:held])
    return (
        [image for number, image in enumerate(images) if number not in measured],
        [image for number, image in enumerate(images) if number in measured],
    )
