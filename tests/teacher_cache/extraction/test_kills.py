"""`kill -9` at random times: commits are kept, little is done twice, and the digest equals that of a normal run.

MEDALIGN_KILLS says how often the long run is killed; with 20 it is 400 images, and takes some minutes.
"""

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kills import Adoption, Moment, Zygote, records, torn
from medalign.errors import StoreError
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.records.ledger import committed_shards
from PIL import Image

KILLS = int(os.environ.get("MEDALIGN_KILLS", "5"))
IMAGES = 20 * KILLS
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def many_images(tmp_path_factory) -> list[ImageSource]:
    folder = tmp_path_factory.mktemp("many")
    sources = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
        sources.append(ImageSource(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return sources


@pytest.fixture(scope="module")
def zygote(forks, phantom_weights, many_images, tmp_path_factory) -> Iterator[Zygote]:
    started = Zygote(forks, phantom_weights, many_images, tmp_path_factory.mktemp("zygote"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def quiet_root(zygote, tmp_path_factory) -> str:
    return zygote.finish(tmp_path_factory.mktemp("quiet") / "s.zarr")["root"]


def kill_again_and_again(zygote: Zygote, store: Path, crews: list[int], seed: int) -> dict[str, Any]:
    """Kill several runs, then let one finish; returns its report."""
    draw = random.Random(seed)
    kept: dict[int, bytes] = {}
    redone = []
    for workers in crews:
        assert zygote.killed(store, Moment(store, draw, most=3), workers=workers), "the run ended before it was killed"
        committed = records(store)
        assert kept.items() <= committed.items(), "a committed shard was lost or written again"
        kept = committed
        redone.append(len(torn(store)))
        assert redone[-1] <= workers
    report = zygote.finish(store)
    assert kept.items() <= records(store).items()
    assert report["redone"] == redone[-1]
    assert report["done"] == IMAGES // 10 - len(kept)
    assert verify(store).ok
    print(f"{len(crews)} kills of {IMAGES} images: {sum(redone)} shards begun and done again, {len(kept)} were kept")
    return report


def test_kills_of_a_single_worker(zygote, quiet_root, tmp_path):
    report = kill_again_and_again(zygote, tmp_path / "s.zarr", [1] * KILLS, seed=1)
    assert report["root"] == quiet_root


def test_kills_while_the_number_of_workers_changes(zygote, quiet_root, tmp_path):
    report = kill_again_and_again(zygote, tmp_path / "s.zarr", [1, 2, 1], seed=2)
    assert report["root"] == quiet_root


def test_kills_of_an_extension(zygote, tmp_path):
    """While the extension is extracted and while it is adopted; the store can be read until the last step."""
    store, draw = tmp_path / "s.zarr", random.Random(3)
    side = store.with_name("s.zarr.extension")
    zygote.finish(store, images=20)
    moments = [Moment(side, draw, most=1), *(Adoption(side, draw) for _ in range(KILLS - 1))]
    kills = sum(killed_while_extending(zygote, store, moment) for moment in moments)
    report = zygote.finish(store, extends=True, images=60)
    whole = zygote.finish(tmp_path / "whole.zarr", images=60)
    assert report["root"] == whole["root"], "20 images are two whole shards, so all batches are the same"
    assert verify(store).ok
    assert not side.exists()
    print(f"{kills} kills of an extension")
    assert kills > 1


def killed_while_extending(zygote: Zygote, store: Path, moment: "Moment | Adoption") -> bool:
    killed = zygote.killed(store, moment, extends=True, images=60)
    if (store / "manifest-sha256.txt").exists():  # there is one until the last step of adopting
        assert len(open_store(store)) in (20, 60)
    return killed


def test_a_second_writer_is_rejected_and_nothing_is_lost(zygote, quiet_root, run_extract, many_images, tmp_path):
    """The first run is paused, so that it is alive while the second one tries."""
    store = tmp_path / "s.zarr"
    pid = zygote.start(store)
    while len(committed_shards(store)) < 2:
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="another run is writing"):
            run_extract(many_images, store, resume=True, batch_size=None, shard_rows=None)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert zygote.ended() == 0
    assert open_store(store).root_sha256 == quiet_root
    assert verify(store).ok
