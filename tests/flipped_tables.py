"""python flipped_tables.py KIND FOLDER SEED COUNT: read a table once for each flipped bit; prints counts as JSON.

KIND is `manifest`, `predictions` or `timings`; COUNT 0 flips every bit. The file is made by `make_tables`. Before each
read the position goes to standard error, so that a process that ends says where.
"""

import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medalign.errors import MedalignError
from medalign.pipeline.data.manifest import Manifest, ManifestRow, Turn
from medalign.pipeline.evaluation.scoring import read_answers, write_scores
from medalign.pipeline.runs.answer_log import LoggedAnswer

FILES = {"manifest": "m.parquet", "predictions": "predictions.parquet", "timings": "timings.parquet"}
RUN = {"student": "tiny", "batch_size": 2}
IDS = [f"q{number}" for number in range(12)]


def make_tables(folder: Path) -> None:
    """A manifest, and the tables of an evaluation, of twelve questions."""
    rows = [
        ManifestRow(
            image=f"images/{number // 2}.png",
            image_hash=f"{number // 2:064x}",
            pixel_hash=f"{number // 2 + 9:064x}",
            width=8 + number,
            height=6,
            question_id=name,
            question=f"Is there a shadow in part {number}?",
            answer="yes" if number % 3 else None,
            answer_type="closed",
            options=("yes", "no") if number % 2 else None,
            history=(Turn("And now?", "Nothing."),) * (number % 3),
            split="test",
            data_use="public",
        )
        for number, name in enumerate(IDS)
    ]
    manifest = Manifest.from_rows(rows, folder / "images", "tables", ("one file is empty",))
    manifest.write(folder / FILES["manifest"])
    answers = [
        LoggedAnswer(question_id=name, prediction=f"answer {number}", seconds=number / 8, forwards=number, finish="end")
        for number, name in enumerate(IDS)
    ]
    write_scores(folder, RUN, manifest.frame, answers, [])


def _manifest(path: Path) -> Any:
    found = Manifest.read(path)
    return found.frame.schema, found.frame.to_dicts(), found.root, found.source, found.unreadable


def _answers(path: Path) -> Any:
    return read_answers(path.parent, RUN, IDS)


def flip(path: Path, read: Callable[[Path], Any], seed: int, count: int) -> Counter[str]:
    """How many flips end how; the file is as before afterwards."""
    sound, data = read(path), path.read_bytes()
    bits: Any = range(8 * len(data))
    found: Counter[str] = Counter()
    for bit in random.Random(seed).sample(bits, count) if count else bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        print(bit, file=sys.stderr, flush=True)
        try:
            found["same" if read(path) == sound else "other"] += 1
        except MedalignError:
            found["refused"] += 1
        except BaseException as error:
            found[f"traceback {type(error).__name__}"] += 1
    path.write_bytes(data)
    return found


def main() -> None:
    kind, folder, seed, count = sys.argv[1:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = flip(Path(folder) / FILES[kind], _manifest if kind == "manifest" else _answers, int(seed), int(count))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(json.dumps({"ends": found, "grown": grown}))


if __name__ == "__main__":
    main()
