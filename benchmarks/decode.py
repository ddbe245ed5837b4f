"""Images a second that one core brings from a file to the teacher's square, by kind of file.

    python benchmarks/decode.py [--count 3] [--rounds 5] [--teacher NAME] [--jpeg-scale reduced] [--against DIR]

The files are drawn by `decode_files.py`. Each is read, hashed, checked, decoded, hashed again by its pixels, and
resized, as `teacher extract` does, on one thread; what is timed is processor time, since a busy machine does not change
it much. With --against, another checkout of medalign does the same beside this one, in a process of its own, round by
round in turn; the ratio is the median of the rounds' ratios. What 16 cores would feed is extrapolated from one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from decode_files import KINDS, write_files

_NODE = 16


def serve(teacher: str, jpeg_scale: str) -> None:
    """Time the files of each line that is read: seconds of processor time for each image."""
    from medalign.teacher_cache.images import decode_image, image_hash
    from medalign.teacher_cache.teachers import teacher_spec
    from medalign.teacher_cache.workers.prefetch import FailedImage, ImageSource, prepare_image

    spec = teacher_spec(teacher)
    options: dict[str, Any] = {} if jpeg_scale == "full" else {"jpeg_scale": jpeg_scale}
    known: dict[str, ImageSource] = {}
    for line in sys.stdin:
        paths = json.loads(line)
        for name in paths:
            if name not in known:
                data = Path(name).read_bytes()
                known[name] = ImageSource(Path(name), image_hash(data), decode_image(data).pixel_hash)
        started = time.process_time()
        for name in paths:
            prepared = prepare_image(known[name], spec, "pad", **options)
            assert not isinstance(prepared, FailedImage), prepared
        print((time.process_time() - started) / len(paths), flush=True)


class Tree:
    """A checkout of medalign in a process of its own."""

    def __init__(self, checkout: Path, scratch: Path, asked: argparse.Namespace, jpeg_scale: str) -> None:
        packages = Path(tempfile.mkdtemp(dir=scratch))
        (packages / "medalign").symlink_to(checkout.absolute(), target_is_directory=True)
        environment = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--serve", "--teacher", asked.teacher, "--jpeg-scale", jpeg_scale]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def seconds(self, paths: list[Path]) -> float:
        """Processor seconds an image."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(path) for path in paths]), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3, help="files of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--teacher", default="unimed-l14-336")
    parser.add_argument("--jpeg-scale", default="full", choices=["full", "reduced"])
    parser.add_argument("--against", type=Path, help="another checkout, or this one to compare --jpeg-scale with full")
    parser.add_argument("--kinds", nargs="*", help="only kinds whose name contains one of these words")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.teacher, asked.jpeg_scale)
        return
    kinds = [kind for kind in KINDS if not asked.kinds or any(word in kind for word in asked.kinds)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_files(folder, kinds, asked.count)
        trees = [Tree(Path(__file__).parents[1], folder, asked, asked.jpeg_scale)]
        if asked.against:
            trees.append(Tree(asked.against, folder, asked, "full"))
        print(f"| kind | MB | images/s and core | {_NODE} cores, extrapolated | other checkout | ratio (rounds) |")
        print("| --- | --- | --- | --- | --- | --- |")
        for kind in kinds:
            print(row(kind, files[kind], trees, asked.rounds), flush=True)
        for tree in trees:
            tree.close()


def row(kind: str, paths: list[Path], trees: list[Tree], rounds: int) -> str:
    """A line of the table."""
    for tree in trees:
        tree.seconds(paths)  # reads the files, imports what this kind needs
    times: list[list[float]] = [[] for _ in trees]
    for number in range(rounds):
        order = range(len(trees)) if number % 2 == 0 else reversed(range(len(trees)))
        for index in order:
            times[index].append(trees[index].seconds(paths))
    speed = 1 / statistics.median(times[0])
    size = statistics.mean(path.stat().st_size for path in paths) / 1e6
    cells = [kind, f"{size:.2f}", f"{speed:.1f}", f"{_NODE * speed:.0f}"]
    if len(trees) == 2:
        ratios = [before / now for now, before in zip(*times, strict=True)]
        cells.append(f"{1 / statistics.median(times[1]):.1f}")
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
