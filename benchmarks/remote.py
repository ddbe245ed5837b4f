"""Reading a store behind a URL: what a batch, an order and workers are worth, and the bytes that k images cost.

    python benchmarks/remote.py [--rows 256] [--delays 0 20 100] [--step 300] [--json]

A local web server answers every request after a delay in milliseconds, as a distant one would. Rows are those of a
ViT-B/16 on 24x24 (885 KB); a step is the time that training computes on a batch of 8.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from medalign.progress import Silent
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.store import TeacherStore, open_store
from store_features import random_features
from store_readers import name_of, write_store

BATCH = 8
IMAGES_PULLED = (1, 8, 40)


class Batches(torch.utils.data.Dataset):
    """What a training run asks for: the rows of a batch in one call."""

    def __init__(self, store: TeacherStore, names: Sequence[str]) -> None:
        self.store, self.names = store, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, indices: Sequence[int]) -> list[torch.Tensor]:
        return list(self.store.read([self.names[index] for index in indices]).E_v)


def serve(folder: Path, delay: float, told: Connection) -> None:
    async def answer(request: web.Request) -> web.FileResponse:
        await asyncio.sleep(delay)
        return web.FileResponse(folder / request.path.lstrip("/"))

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def server(folder: Path, milliseconds: int) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, milliseconds / 1000, theirs))
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/store.zarr"
    finally:
        process.kill()
        process.join()


def rate(images: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return images / (time.perf_counter() - start)


def reading(url: str, names: Sequence[str], step: float) -> dict[str, float]:
    """Images a second, and milliseconds of a step with its reading."""
    shuffled = random.Random(0).sample(names, len(names))

    def batches(order: Sequence[str]) -> float:
        store = open_store(url)
        store.read(order[:1])  # connects
        groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        return rate(len(order), lambda: [store.read(group) for group in groups])

    def steps(workers: int) -> float:
        loader = iter(torch.utils.data.DataLoader(Batches(open_store(url), shuffled), BATCH, num_workers=workers))
        next(loader)
        start, count = time.perf_counter(), 0
        for count, _ in enumerate(loader, start=1):  # noqa: B007
            time.sleep(step)
        return (time.perf_counter() - start) / count * 1000

    alone, few = open_store(url), shuffled[: 4 * BATCH]
    alone.read(few[:1])
    return {
        "one by one": rate(len(few), lambda: [alone.read([name]) for name in few]),
        "batches, random order": batches(shuffled),
        "batches, row order": batches(names),
        "step ms, 0 workers": steps(0),
        "step ms, 1 worker": steps(1),
    }


def pulled(url: str, names: Sequence[str], row_bytes: int, out: Path) -> list[dict[str, Any]]:
    """Bytes moved to pull k images, over the bytes of their rows."""
    table = []
    for images in IMAGES_PULLED:
        wanted = [Wanted(image_hash=name) for name in random.Random(images).sample(names, images)]
        moved = subset(url, out / f"{images}.zarr", wanted, progress=Silent()).bytes_transferred
        table.append({"images": images, "bytes moved": moved, "over their rows": round(moved / images / row_bytes, 4)})
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 20, 100])
    parser.add_argument("--step", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"reading": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "store.zarr", random_features("unimed-b16-224", 8), "float16", options.rows, shard_rows=64)
        names = [name_of(row) for row in range(options.rows)]
        row_bytes = sum(array.nbytes for array in open_store(folder / "store.zarr").header.arrays())
        for delay in options.delays:
            with server(folder, delay) as url:
                found = reading(url, names, options.step / 1000)
                result["reading"].append({"delay ms": delay} | {name: round(value) for name, value in found.items()})
        with server(folder, 0) as url:
            result["pulling"] = pulled(url, names, row_bytes, folder)
    if options.json:
        print(json.dumps(result))
        return
    for title, rows in result.items():
        print(title, *rows, sep="\n  ")


if __name__ == "__main__":
    main()
