"""Stores whose rows are computed from small images by a made-up teacher, and copies with wrong rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from labs import hashes_of
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import read_image
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.header import plan_digest
from medalign.teacher_cache.store.format.keyed_hashes import HashKey
from medalign.teacher_cache.store.format.profiles import encode
from medalign.teacher_cache.store.writing.writer import StoreWriter
from PIL import Image
from stores import store_header

CELLS = 4
SIDE = 32


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Square images of random blobs with texture, each another one."""
    folder.mkdir()
    paths = []
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = Image.fromarray(generator.integers(0, 255, (4, 4)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
        textured = smooth + generator.normal(0, 12, (SIDE, SIDE)) * (smooth / 255)
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(np.clip(textured, 0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def teach(image: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """E_v [1, 16, 8] and E_a [1, 16]: brightness and contrast of each cell in eight mixtures, with some noise."""
    pixels = np.asarray(read_image(image).shown, np.float32) / 255
    cells = pixels.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).transpose(0, 2, 1, 3).reshape(CELLS**2, -1)
    measures = np.stack([cells.mean(1), np.log(cells.std(1) + 0.01)], axis=1)
    generator = np.random.default_rng(0)
    mixture, offset = generator.normal(size=(2, 8)), generator.normal(size=8)
    noise = np.random.default_rng(int(pixels.sum() * 1e3)).normal(scale=0.3, size=(CELLS**2, 8))
    E_v = measures @ mixture + offset + noise
    E_a = np.exp(measures[:, 0] * 3)
    return torch.tensor(E_v, dtype=torch.float32)[None], torch.tensor(E_a / E_a.sum(), dtype=torch.float32)[None]


def write_rows(
    path: Path,
    images: Sequence[Path],
    taught: Sequence[tuple[torch.Tensor, torch.Tensor]],
    *,
    key: HashKey | None = None,
    **fields: object,
) -> Path:
    """A finished store: row i has the hashes of image i and the i-th E_v and E_a."""
    plain = hashes_of(images)
    names = [key.keyed(name) if key else name for name in plain]
    square = PatchGrid(CELLS, CELLS)
    grid = {"grid": square, "native_grid": square, "shard_rows": 16, "segments": (len(images),)}
    hashing = {"hashing": key.hashing} if key else {}
    header = store_header(range(len(images)), **{"plan_sha256": plan_digest(names), **grid, **hashing, **fields})
    writer = StoreWriter.create(path, header, names, ())
    queue = iter(zip(images, names, taught, strict=True))
    with RunLock(path):
        for number in writer.pending():
            shard = writer.begin(number, None)
            for _ in header.shard_range(number):
                image, name, (E_v, E_a) = next(queue)
                rows = encode(shard.profile, E_v, E_a, header.native_grid, header.grid)
                decoded = read_image(image)
                shard.append(
                    {array: values[0] for array, values in rows.arrays.items()},
                    image_hash=name,
                    pixel_hash=key.keyed(decoded.pixel_hash) if key else decoded.pixel_hash,
                    size=(decoded.width, decoded.height),
                    max_abs_dS=0.0,
                )
            shard.commit()
        writer.finish()
    return path
