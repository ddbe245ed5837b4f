"""Stores with random contents, written by the real writer without a teacher."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.header import StoreHeader, plan_digest
from medalign.teacher_cache.store.format.keyed_hashes import HashKey
from medalign.teacher_cache.store.format.profiles import Profile, encode
from medalign.teacher_cache.store.writing.writer import StoreWriter


def name_of(image: int) -> str:
    """The image hash of the n-th made-up image."""
    return hashlib.sha256(b"image %d" % image).hexdigest()


def pixels_of(image: int) -> str:
    """Its pixel hash."""
    return hashlib.sha256(b"pixels %d" % image).hexdigest()


def teacher_output(images: Sequence[int], header: StoreHeader) -> tuple[torch.Tensor, torch.Tensor]:
    """What a teacher says about made-up images: the same for the same image, whatever the store."""
    native = header.native_grid.patches
    made = [torch.randn(native, header.width + 1, generator=torch.Generator().manual_seed(image)) for image in images]
    values = torch.stack(made)
    return values[..., :-1].contiguous(), values[..., -1].softmax(dim=-1)


def store_header(images: Sequence[int], **fields: object) -> StoreHeader:
    names = [name_of(image) for image in images]
    defaults: dict[str, object] = {
        "teacher": "random",
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
        "features": "last-block",
        "dtype": "float32",
        "image_size": 24,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "geometry": "pad",
        "native_grid": PatchGrid(3, 3),
        "grid": PatchGrid(4, 4),
        "profile": "float16",
        "width": 8,
        "segments": (len(images),),
        "shard_rows": 4,
        "plan_sha256": plan_digest(names),
        "batch_size": 2,
        "threads": 1,
        "data_use": "public",
        "created_by": "medalign tests",
    }
    return StoreHeader.model_validate(defaults | fields)


def write_store(
    path: Path,
    images: Sequence[int],
    *,
    failing: Sequence[int] = (),
    wide: dict[int, Profile] | None = None,
    unreadable: Sequence[str] = (),
    key: HashKey | None = None,
    hashes: Sequence[str] | None = None,
    **fields: object,
) -> Path:
    """A finished store of made-up images; `failing` ones have no row, `wide` gives the profile of some shards.

    `hashes` are the image hashes, by default made up too.
    """
    plain = [name_of(image) for image in images] if hashes is None else hashes
    names = [key.keyed(name) if key else name for name in plain]
    hashing = {"hashing": key.hashing} if key else {}
    header = store_header(images, plan_sha256=plan_digest(names), **hashing, **fields)
    writer = StoreWriter.create(path, header, names, unreadable)
    queue = iter(zip(images, names, strict=True))
    with RunLock(path):
        for number in writer.pending():
            shard = writer.begin(number, (wide or {}).get(number))
            for _ in header.shard_range(number):
                image, name = next(queue)
                if image in failing:
                    shard.fail(name, "no image")
                    continue
                rows = encode(shard.profile, *teacher_output([image], header), header.native_grid, header.grid)
                shard.append(
                    {array: values[0] for array, values in rows.arrays.items()},
                    image_hash=name,
                    pixel_hash=key.keyed(pixels_of(image)) if key else pixels_of(image),
                    size=(30 + image, 20),
                    max_abs_dS=float(rows.max_abs_dS[0]),
                )
            shard.commit()
        writer.finish()
    return path
