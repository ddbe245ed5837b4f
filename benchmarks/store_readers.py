"""The contestants of benchmarks/store.py: the same rows, kept in other ways. A part of benchmarks/store.py."""

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr
from medalign import __version__
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.store import StoreHeader, open_store
from medalign.teacher_cache.store.format.header import plan_digest
from medalign.teacher_cache.store.format.profiles import EncodedRows, Profile, encode
from medalign.teacher_cache.store.writing.writer import StoreWriter
from store_features import GRID, Features

Read = Callable[[str], tuple[torch.Tensor, torch.Tensor]]
"""Image hash -> (E_v [N, b] or S [N, N], E_a [N]), float32 tensors of their own memory."""


def name_of(row: int) -> str:
    return hashlib.sha256(b"image %d" % row).hexdigest()


def header_of(features: Features, profile: Profile, rows: int, shard_rows: int) -> StoreHeader:
    return StoreHeader(
        teacher=features.name,
        weights_sha256="0" * 64,
        features="last-block",
        dtype="float32",
        image_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        geometry="pad",
        native_grid=features.native,
        grid=GRID,
        profile=profile,
        width=features.patches.shape[2],
        segments=(rows,),
        shard_rows=shard_rows,
        plan_sha256=plan_digest(map(name_of, range(rows))),
        batch_size=1,
        threads=1,
        data_use="public",
        created_by=f"medalign {__version__}",
    )


def write_store(path: Path, features: Features, profile: Profile, rows: int, shard_rows: int) -> EncodedRows:
    """A store of `rows` images by the real writer; the features' few images take turns."""
    encoded = encode(profile, features.patches, features.attention, features.native, GRID)
    header = header_of(features, profile, rows, shard_rows)
    writer = StoreWriter.create(path, header, [name_of(row) for row in range(rows)])
    for shard in writer.pending():
        in_progress = writer.begin(shard)
        for row in header.shard_range(shard):
            image = row % len(features.patches)
            in_progress.append(
                {name: values[image] for name, values in encoded.arrays.items()},
                image_hash=name_of(row),
                pixel_hash=name_of(row),
                size=(640, 512),
                max_abs_dS=float(encoded.max_abs_dS[image]),
            )
        in_progress.commit()
    writer.finish()
    return encoded


def shard_bytes(store: Path) -> int:
    """Bytes of all shard files: chunks, their checksums, and the shards' indexes."""
    return sum(file.stat().st_size for file in store.glob("*/c/**/*") if file.is_file())


def our_reader(path: Path) -> Read:
    store = open_store(path)

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        targets = store.read([name])
        return targets.S if targets.E_v is None else targets.E_v, targets.E_a

    return read


def zarr_reader(path: Path, rows: int) -> Read:
    """zarr-python on the same files, row by row."""
    group = zarr.open_group(str(path), mode="r")
    patches, attention = group["E_v"], group["E_a"]
    row_of = {name_of(row): row for row in range(rows)}

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        row = row_of[name]
        return torch.from_numpy(patches[row]).float(), torch.from_numpy(attention[row])

    return read


def memmap_reader(folder: Path, encoded: EncodedRows, rows: int) -> Read:
    """Two raw files, mapped: no checksum, no hash but a dictionary. Widened straight from the map, in torch."""
    row_of = {name_of(row): row for row in range(rows)}
    maps = {}
    for name, values in encoded.arrays.items():
        shape = (rows, *values.shape[1:])
        file = np.memmap(folder / f"{name}.raw", dtype=values.dtype, mode="w+", shape=shape)
        for row in range(rows):
            file[row] = values[row % len(values)]
        file.flush()
        # Copy-on-write, because torch warns about arrays that cannot be written to.
        maps[name] = torch.from_numpy(np.memmap(folder / f"{name}.raw", dtype=values.dtype, mode="c", shape=shape))
    patches, attention = maps["E_v"], maps["E_a"]

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        row = row_of[name]
        return patches[row].float(), attention[row].clone()

    return read


def file_reader(folder: Path, encoded: EncodedRows, rows: int) -> Read:
    """One .npy file for each image and array."""
    folder.mkdir()
    for row in range(rows):
        for name, values in encoded.arrays.items():
            np.save(folder / f"{name_of(row)}-{name}.npy", values[row % len(values)])

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        patches, attention = np.load(folder / f"{name}-E_v.npy"), np.load(folder / f"{name}-E_a.npy")
        return torch.from_numpy(patches).float(), torch.from_numpy(attention)

    return read


def write_pickle(path: Path, features: Features, exact: torch.Tensor, rows: int) -> None:
    """What the paper's released code shares: one dictionary of the whole data set, file path -> S [N, N] float32."""
    cosines = cosine_matrix(exact).numpy()
    maps = features.attention.numpy()
    entries = {
        f"images/{name_of(row)}.jpg": (cosines[row % len(cosines)].copy(), maps[row % len(maps)].copy())
        for row in range(rows)
    }
    with path.open("wb") as file:
        pickle.dump(entries, file, protocol=4)


def pickle_reader(path: Path) -> Read:
    with path.open("rb") as file:
        entries = pickle.load(file)

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, attention = entries[f"images/{name}.jpg"]
        return torch.from_numpy(cosines).clone(), torch.from_numpy(attention).clone()

    return read


def in_fresh_process(prepare: str, measured: str) -> tuple[float, float]:
    """(seconds, MB of memory added) by running `measured` after `prepare` in a new interpreter."""
    code = f"""
import time
def resident():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) / 1000
{prepare}
before, started = resident(), time.perf_counter()
{measured}
print(time.perf_counter() - started, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)
