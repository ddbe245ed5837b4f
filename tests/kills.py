"""Running stage one in processes that are killed: the parent's side of zygote.py, and moments to kill at."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import stand_in
from forks import Forks
from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.store.records.ledger import committed_shards, record_key


class Zygote:
    """tests/zygote.py, and the run that it has under way."""

    def __init__(self, forks: Forks, weights: Path, images: list[ImageSource], scratch: Path) -> None:
        self._weights, self._images, self._report = weights, images, scratch / "report.json"
        script = str(Path(__file__).with_name("zygote.py"))
        command = [sys.executable, *stand_in.command(forks.address(), script, [], [0, 1])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()
        assert self._process.returncode == 0

    def start(self, out: Path, workers: int = 1, images: int | None = None, **changes: Any) -> int:
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
            "environment": {},
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
        return sum(size(file) for file in self._store.glob("E_v/c/*/0/.0.medalign-*.partial")) / (10 * 36 * 96 * 2)


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
    except (FileNotFoundError, ProcessLookupError):  # it can end between opening and reading
        return False


def records(store: Path) -> dict[int, bytes]:
    return {shard: (store / record_key(shard)).read_bytes() for shard in committed_shards(store)}


def torn(store: Path) -> set[int]:
    """Shards of which a killed run left something."""
    return {int(file.parts[-3]) for file in store.glob("E_v/c/*/0/.0.medalign-*.partial")}


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
