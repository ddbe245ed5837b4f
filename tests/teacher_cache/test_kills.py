"""`kill -9` at random moments: what was committed stays, little is done twice, the digest is that of a quiet run.

MEDALIGN_KILLS says how often the long run is killed; with 20 it is 400 images, and takes some minutes.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medalign.errors import StoreError
from medalign.teacher_cache.extract import ImageSource
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.ledger import committed_shards, record_key
from medalign.teacher_cache.store.verify import verify
from PIL import Image

KILLS = int(os.environ.get("MEDALIGN_KILLS", "5"))
IMAGES = 20 * KILLS
ROOT = Path(__file__).parents[1]


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


class Zygote:
    """tests/zygote.py, and the run that it has under way."""

    def __init__(self, weights: Path, images: list[ImageSource], scratch: Path) -> None:
        self._weights, self._images, self._report = weights, images, scratch / "report.json"
        command = [sys.executable, str(ROOT / "zygote.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()
        assert self._process.returncode == 0

    def start(self, out: Path, workers: int = 1, images: int = IMAGES, **changes: Any) -> int:
        """Begin a run, by default an extraction of all images; returns the pid."""
        self._report.unlink(missing_ok=True)
        order = {
            "weights": str(self._weights),
            "images": [(str(source.path), source.image_hash) for source in self._images[:images]],
            "out": str(out),
            "report": str(self._report),
            "engine": "local",
            "workers": workers,
            "extends": False,
        }
        self._process.stdin.write(json.dumps(order | changes) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ended(self) -> int:
        """Wait for the run; its exit code, negative for a signal."""
        return int(self._process.stdout.readline())

    def finish(self, out: Path, **changes: Any) -> dict[str, Any]:
        """Run undisturbed; returns the report."""
        self.start(out, **changes)
        assert self.ended() == 0
        return json.loads(self._report.read_text())

    def killed(self, out: Path, moment: "Moment | Adoption", **changes: Any) -> bool:
        """Run and kill at a moment; False where the run was faster."""
        moment.begin()
        pid = self.start(out, **changes)
        while not moment.reached():
            if self._report.exists():
                break
            time.sleep(0.0005)
        workers = children_of(pid)
        os.kill(pid, signal.SIGKILL)
        code = self.ended()
        wait_until_gone(workers)
        return code == -signal.SIGKILL


@pytest.fixture(scope="module")
def zygote(phantom_weights, many_images, tmp_path_factory) -> Iterator[Zygote]:
    started = Zygote(phantom_weights, many_images, tmp_path_factory.mktemp("zygote"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def quiet_root(zygote, tmp_path_factory) -> str:
    return zygote.finish(tmp_path_factory.mktemp("quiet") / "s.zarr")["root"]


class Moment:
    """So many shards after the start, and then so far into the next one; drawn at random."""

    def __init__(self, store: Path, random_: random.Random, most: int) -> None:
        self._store, self._shards, self._part = store, random_.randrange(most + 1), random_.random()
        self._committed = 0

    def begin(self) -> None:
        self._committed = len(committed_shards(self._store))

    def reached(self) -> bool:
        beyond = len(committed_shards(self._store)) - self._committed - self._shards
        return beyond > 0 or (beyond == 0 and self._progress() >= self._part)

    def _progress(self) -> float:
        """Of the shard that is being written: 10 rows of 6 x 6 patches with 96 float16 channels."""
        return sum(size(file) for file in self._store.glob("E_v/c/*/0/0.partial")) / (10 * 36 * 96 * 2)


def size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def children_of(pid: int) -> list[int]:
    """All processes that a run started, and those that they started."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in found.read_text().split()] if found.exists() else []
    return [*children, *(grandchild for child in children for grandchild in children_of(child))]


def wait_until_gone(pids: list[int]) -> None:
    """A worker notices by itself that its parent has died."""
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def records(store: Path) -> dict[int, bytes]:
    return {shard: (store / record_key(shard)).read_bytes() for shard in committed_shards(store)}


def torn(store: Path) -> set[int]:
    """Shards of which a killed run left something."""
    return {int(file.parts[-3]) for file in store.glob("E_v/c/*/0/0.partial")}


def kill_again_and_again(zygote: Zygote, store: Path, crews: list[int], seed: int) -> dict[str, Any]:
    """Kill one run after the other, then let one finish; returns its report."""
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


class Adoption:
    """A moment after the extension itself was finished; adopting it takes about 0.2 s."""

    def __init__(self, side: Path, random_: random.Random) -> None:
        self._manifest, self._wait, self._since = side / "manifest-sha256.txt", random_.uniform(0, 0.2), 0.0

    def begin(self) -> None:
        self._since = 0.0

    def reached(self) -> bool:
        if not self._since and self._manifest.exists():
            self._since = time.monotonic()
        return self._since > 0 and time.monotonic() - self._since > self._wait


def test_a_second_writer_is_refused_and_nothing_is_lost(zygote, quiet_root, run_extract, many_images, tmp_path):
    """The first is stopped, so that it surely lives while the second tries."""
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
