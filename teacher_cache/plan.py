"""What a run of stage one will write, before it writes anything: distinct images, rows, shards, header."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .. import __version__
from .geometry import Geometry, PatchGrid
from .prefetch import ImageSource
from .store.format import DataUse, StoreHeader, default_shard_rows, plan_digest
from .store.metadata import read_header
from .teachers.forward import Teacher


def distinct_sources(images: Sequence[ImageSource]) -> list[ImageSource]:
    """The first source of every hash, in first-seen order."""
    first: dict[str, ImageSource] = {}
    for source in images:
        first.setdefault(source.image_hash, source)
    return list(first.values())


def plan_header(
    teacher: Teacher,
    sources: Sequence[ImageSource],
    grid: PatchGrid,
    geometry: Geometry,
    data_use: DataUse,
    shard_rows: int,
    batch_size: int,
) -> StoreHeader:
    spec = teacher.spec
    return StoreHeader(
        teacher=spec.name,
        weights_sha256=teacher.weights_sha256,
        features=spec.features,
        dtype=teacher.dtype,
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        geometry=geometry,
        native_grid=spec.grid,
        grid=grid,
        width=spec.width,
        profile="float16",
        segments=(len(sources),),
        shard_rows=shard_rows,
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        plan_sha256=plan_digest(source.image_hash for source in sources),
        data_use=data_use,
        created_by=f"medalign {__version__}",
    )


def plan_shard_rows(out: Path, rows: int, asked: int | None, continued: bool) -> int:
    """Rows for each shard: what was asked for, what the earlier run used, or what fits the number of rows."""
    if asked is not None:
        return asked
    return read_header(out).shard_rows if continued else default_shard_rows(rows, 2)
