"""The hashes of a manifest's mask files, which detect swapped masks (docs/manifests.md)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from ...progress import Progress
from ...teacher_cache.images import UnreadableImage, image_hash, read_image_bytes
from ...teacher_cache.workers.cores import usable_cores
from .manifest import Manifest
from .manifest_schema import MASK_HASHES, MASK_HASHES_COLUMN
from .regions import REGION_COLUMN


def with_mask_hashes(manifest: Manifest, progress: Progress) -> Manifest:
    """Add the hash of every mask file in the regions; a file that cannot be read gets none."""
    masks = list(dict.fromkeys(mask for cell in _masks(manifest.frame) for mask in cell))
    if not masks:
        return manifest

    def digest(mask: str) -> str | None:
        try:
            return image_hash(read_image_bytes(manifest.path_of(mask)))
        except UnreadableImage:
            return None

    progress.start("hashing masks", len(masks))
    hashes: dict[str, str | None] = {}
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        for mask, found in zip(masks, pool.map(digest, masks), strict=True):
            hashes[mask] = found
            progress.advance()
    column = [
        [{"mask": mask, "mask_hash": hashes[mask]} for mask in cell if hashes[mask]] for cell in _masks(manifest.frame)
    ]
    frame = manifest.frame.with_columns(pl.Series(MASK_HASHES_COLUMN, column, dtype=MASK_HASHES))
    return Manifest(frame, manifest.root, manifest.source, manifest.unreadable)


def mask_hashes(frame: pl.DataFrame) -> dict[str, str]:
    """Name of each mask file in a manifest -> its hash."""
    return {pair["mask"]: pair["mask_hash"] for cell in frame[MASK_HASHES_COLUMN] for pair in cell}


def _masks(frame: pl.DataFrame) -> Iterator[list[str]]:
    """The distinct masks of each row."""
    for cell in frame[REGION_COLUMN]:
        yield list(dict.fromkeys(region["mask"] for region in cell if region["mask"] is not None))
