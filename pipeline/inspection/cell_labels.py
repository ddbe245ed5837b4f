"""Names for image patches: the annotated region that covers them, or an attribute of their whole image.

K images, N patches, P chosen patches per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from ...progress import Progress
from ...student.metrics.region_attention import region_coverage
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..data.annotations.region_masks import region_pixels
from ..data.manifest import Manifest
from ..data.mask_hashes import mask_hashes
from ..data.regions import Region, read_regions
from .inspected_images import InspectedImages

BACKGROUND = "background"
UNNAMED = -1
"""Label of a patch without a name: across a border, of a rare region, or of an image without annotations."""
CHOSEN = 12
"""Patches per image that are kept."""
MOST_NAMES = 12
FEWEST_IMAGES = 5
"""A region on fewer images has no name."""
LabelKind = Literal["region", "organ", "modality"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CellLabels:
    """Chosen patches of every image and their names."""

    kind: LabelKind | None
    """What the names are: regions differ within an image, organ and modality do not; `None`: there are no names."""
    names: tuple[str, ...]
    chosen: Int[np.ndarray, "images chosen"]
    """Index of each patch on the grid, row-major."""
    labels: Int[np.ndarray, "images chosen"]
    """Index in `names`, or UNNAMED."""


def label_cells(inspected: InspectedImages, grid: PatchGrid, *, seed: int, progress: Progress) -> CellLabels:
    """Choose patches and name them by region; without regions by the organ or the modality of their image.

    Raises:
        InputError: A mask is missing or does not fit its image.
    """
    generator = np.random.default_rng(seed)
    if (inspected.images.frame["regions"].list.len() > 0).sum() >= FEWEST_IMAGES:
        names, labels = region_labels(inspected.images, grid, progress)
        names, labels = _frequent(names, labels)
        chosen = choose_cells(labels, generator)
        picked = np.take_along_axis(labels, chosen, axis=1)
        if len(names) > 1:
            return CellLabels(kind="region", names=names, chosen=chosen, labels=picked)
    blank = np.zeros((len(inspected.images), grid.patches), dtype=np.int64)
    chosen = choose_cells(blank, generator)
    for kind in ("organ", "modality"):
        names, of_image = image_labels(inspected, kind)
        if len(names) > 1:
            labels = np.repeat(of_image[:, None], chosen.shape[1], axis=1)
            return CellLabels(kind=kind, names=names, chosen=chosen, labels=labels)
    return CellLabels(kind=None, names=(), chosen=chosen, labels=np.full_like(chosen, UNNAMED))


def region_labels(
    images: Manifest, grid: PatchGrid, progress: Progress
) -> tuple[tuple[str, ...], Int[np.ndarray, "images patches"]]:
    """Names of all regions, and for each patch the smallest region that covers at least half of it.

    A patch with less than a tenth of its area in any region is background; one that no region covers by half has no
    name, like all patches of an image without regions.
    """
    hashes = mask_hashes(images.frame)
    progress.start("reading regions", len(images))
    covered: list[dict[str, np.ndarray]] = []
    for width, height, cell in images.frame.select("width", "height", "regions").iter_rows():
        by_name: dict[str, list[Region]] = {}
        for region in read_regions(cell) if width is not None else ():
            by_name.setdefault(region.name, []).append(region)
        covered.append(
            {
                name: region_coverage(region_pixels(found, images.root, width, height, hashes), grid).numpy()
                for name, found in by_name.items()
            }
        )
        progress.advance()
    names = (BACKGROUND, *sorted({name for found in covered for name in found}))
    return names, np.stack([name_cells(found, names, grid.patches) for found in covered])


def name_cells(
    coverage: dict[str, Float[np.ndarray, " patches"]], names: Sequence[str], patches: int
) -> Int[np.ndarray, " patches"]:
    """The labels of one image's patches (`region_labels`)."""
    labels = np.full(patches, UNNAMED)
    if not coverage:
        return labels
    labels[np.max(list(coverage.values()), axis=0) < 0.1] = 0
    for name in sorted(coverage, key=lambda name: -float(coverage[name].sum())):
        labels[coverage[name] >= 0.5] = names.index(name)
    return labels


def image_labels(inspected: InspectedImages, column: str) -> tuple[tuple[str, ...], Int[np.ndarray, " images"]]:
    """The values of a manifest's column as labels of images; UNNAMED if the rows of an image disagree, or are null."""
    every = pl.concat([inspected.images.frame, inspected.questions.frame])
    by_image: dict[str, set[str | None]] = {}
    for image, value in every.select("image_hash", column).iter_rows():
        by_image.setdefault(image, set()).add(value)
    values = [by_image[image] for image in inspected.images.frame["image_hash"]]
    single = [next(iter(found)) if len(found) == 1 else None for found in values]
    names = tuple(sorted({value for value in single if value}))
    labels = np.array([names.index(value) if value else UNNAMED for value in single])
    names, frequent = _frequent(names, labels[:, None])
    return names, frequent[:, 0]


def choose_cells(
    labels: Int[np.ndarray, "images patches"], generator: np.random.Generator
) -> Int[np.ndarray, "images chosen"]:
    """Draw patches of each image, evenly over its names; patches without a name only if there are no others."""
    count = min(CHOSEN, labels.shape[1])
    chosen = np.empty((len(labels), count), dtype=np.int64)
    for row, of_image in zip(chosen, labels, strict=True):
        order = generator.permutation(len(of_image))
        rank = np.zeros(len(of_image))
        for name in np.unique(of_image):
            same = order[of_image[order] == name]
            rank[same] = np.arange(len(same)) + (len(of_image) if name == UNNAMED else 0)
        row[:] = order[np.argsort(rank[order], kind="stable")][:count]
    return chosen


def _frequent(
    names: tuple[str, ...], labels: Int[np.ndarray, "images patches"]
) -> tuple[tuple[str, ...], Int[np.ndarray, "images patches"]]:
    """Keep the names on the most images, at most MOST_NAMES, each on at least FEWEST_IMAGES."""
    images = [int((labels == number).any(axis=1).sum()) for number in range(len(names))]
    ranked = sorted(range(len(names)), key=lambda number: -images[number])[:MOST_NAMES]
    kept = [number for number in range(len(names)) if number in ranked and images[number] >= FEWEST_IMAGES]
    renumbered = np.full(len(names) + 1, UNNAMED)
    renumbered[kept] = np.arange(len(kept))
    return tuple(names[number] for number in kept), renumbered[labels]
