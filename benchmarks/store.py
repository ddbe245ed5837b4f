"""Teacher stores side by side: bytes and exactness of every profile, reads a second, and looking images up.

    python benchmarks/store.py [--features towers|random] [--rows 200] [--rounds 7] [--index-rows 1000 1000000] [--json]

Beside our profiles: the paper's pickle of cosine matrices, zarr-python on our files, numpy.memmap, one file for each
image. `towers` are open_clip's with their own random initial weights, on drawn images; `random` are drawn features.
Reads are of single images in random order from a warm page cache; each gives float32 tensors in memory of their own.
They are timed in CPU seconds of the process, which are seconds where nothing else runs. The contestants take turns in
every round; printed are medians over the rounds. Ours and zarr-python check crc32c, the others nothing.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from medalign.teacher_cache.geometry.pixels import interpolate_patches
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.format.header import default_shard_rows
from medalign.teacher_cache.store.format.profiles import PROFILES
from store_features import GRID, TEACHERS, Features, random_features, tower_features
from store_lookup import look_ups
from store_readers import (
    Read,
    file_reader,
    in_fresh_process,
    memmap_reader,
    name_of,
    our_reader,
    pickle_reader,
    shard_bytes,
    write_pickle,
    write_store,
    zarr_reader,
)

PICKLE = "paper's pickle"


def sizes(folder: Path, features: Features) -> list[dict[str, Any]]:
    """Bytes an image of shard files, and the change of S as read back, for every profile and the pickle."""
    folder.mkdir()
    images = len(features.patches)
    exact = interpolate_patches(features.patches, features.native, GRID)
    S = cosine_matrix(exact)
    table = []
    for profile in PROFILES:
        path = folder / f"{profile}.zarr"
        write_store(path, features, profile, images, shard_rows=images)
        targets = open_store(path).read([name_of(image) for image in range(images)])
        found = targets.S if targets.E_v is None else cosine_matrix(targets.E_v)
        table.append(_size(features, profile, shard_bytes(path) / images, (found - S).abs()))
    write_pickle(folder / "paper.pkl", features, exact, images)
    return [*table, _size(features, PICKLE, (folder / "paper.pkl").stat().st_size / images, torch.zeros(1))]


def _size(features: Features, kept_as: str, image_bytes: float, change: torch.Tensor) -> dict[str, Any]:
    return {
        "teacher": f"{features.name}, {features.patches.shape[1]}x{features.patches.shape[2]}",
        "kept as": kept_as,
        "bytes": round(image_bytes),
        "max_dS": float(change.max()),
        "mean_dS": float(change.mean()),
    }


def reads(folder: Path, features: Features, rows: int, rounds: int) -> list[dict[str, Any]]:
    """Images a second of every contestant, and its ratio to memmap in the same round."""
    folder.mkdir()
    readers = _readers(folder, features, rows)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    shuffled = random.Random(0)
    for number in range(rounds + 1):
        names = [name_of(row) for row in shuffled.sample(range(rows), rows)]
        for contestant in shuffled.sample(list(readers), len(readers)):
            rate = _rate(readers[contestant], names)
            if number:  # the first round warms the page cache
                rates[contestant].append(rate)
    ratios = {
        name: statistics.median(a / b for a, b in zip(found, rates["memmap"], strict=True))
        for name, found in rates.items()
    }
    return [
        {"contestant": name, "images_per_cpu_second": statistics.median(found), "of_memmap": ratios[name]}
        for name, found in rates.items()
    ]


def _rate(read: Read, names: list[str]) -> float:
    started = time.process_time()
    for name in names:
        read(name)
    return len(names) / (time.process_time() - started)


def _readers(folder: Path, features: Features, rows: int) -> dict[str, Read]:
    encoded = {
        profile: write_store(folder / f"{profile}.zarr", features, profile, rows, default_shard_rows(rows, 2))
        for profile in PROFILES
    }
    exact = interpolate_patches(features.patches, features.native, GRID)
    write_pickle(folder / "paper.pkl", features, exact, rows)
    ours = {f"ours, {profile}": our_reader(folder / f"{profile}.zarr") for profile in PROFILES}
    others = {
        "zarr-python, float16": zarr_reader(folder / "float16.zarr", rows),
        "memmap": memmap_reader(folder, encoded["float16"], rows),
        "a file an image": file_reader(folder / "files", encoded["float16"], rows),
        PICKLE: pickle_reader(folder / "paper.pkl"),
    }
    for name, read in {**ours, **others}.items():
        tensors = read(name_of(0))
        assert all(tensor.dtype == torch.float32 for tensor in tensors), name
    return {**ours, **others}


def openings(folder: Path, rows: int) -> list[dict[str, Any]]:
    """Time and resident memory until the first row is there, in a fresh process."""
    ours = ("import medalign.teacher_cache.store as s", f"t = s.open_store({str(folder / 'float16.zarr')!r})")
    first = f"; t.read([{name_of(0)!r}])"
    loading = f"t = pickle.load(open({str(folder / 'paper.pkl')!r}, 'rb'))"
    runs = {"ours, float16": (ours[0], ours[1] + first), PICKLE: ("import numpy, pickle", loading)}
    measured = {name: in_fresh_process(*run) for name, run in runs.items()}
    return [{"contestant": name, "rows": rows, "seconds": s, "memory_mb": mb} for name, (s, mb) in measured.items()]


def show(title: str, table: list[dict[str, Any]]) -> None:
    """Print rows under their keys; floats with four significant digits."""
    print(f"\n{title}")
    cells = [list(table[0]), *([_text(value) for value in row.values()] for row in table)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", choices=["towers", "random"], default="towers")
    parser.add_argument("--images", type=int, default=4, help="different images whose features are stored")
    parser.add_argument("--rows", type=int, default=200, help="images in the stores that are read from")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--index-rows", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    make = tower_features if asked.features == "towers" else random_features
    features = {name: make(name, asked.images) for name in TEACHERS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        results = {
            "Bytes an image, and change of the patch cosines": [
                row for name, found in features.items() for row in sizes(folder / name, found)
            ],
            f"Reads from {asked.rows} images of {TEACHERS[0]}": reads(
                folder / "reads", features[TEACHERS[0]], asked.rows, asked.rounds
            ),
            "Until the first row is there": openings(folder / "reads", asked.rows),
            "Looking images up": [look_ups(folder, rows) for rows in asked.index_rows],
        }
    if asked.json:
        print(json.dumps({"features": asked.features, **results}, indent=2))
        return
    print(f"features: {asked.features}, {asked.images} images; one thread")
    for title, table in results.items():
        if table:
            show(title, table)


if __name__ == "__main__":
    main()
