"""zygote.py IN OUT: runs of stage one that may be killed, in a child of the fork server that forks one for each run.

Nothing here computes before it forks, so that the children are as good as fresh interpreters. Reads one JSON object a
line from a descriptor, answers on another with the child's pid, then with how it ended.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

import no_syncs
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import ExtractionOptions, ImageSource, TeacherRecipe, extract
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.workers.engines import Crew


class Noted(Silent):
    """Writes the notes of a run to its standard error."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def run(order: dict[str, Any]) -> None:
    """Extract, or extend where `extends` is set."""
    os.environ.update(order["environment"])
    recipe = TeacherRecipe(name="phantom-tiny", weights=order["weights"])
    images = [ImageSource(Path(path), digest) for path, digest in order["images"]]
    crew = Crew(workers=order["workers"], engine=order["engine"], decode_workers=1)
    out = Path(order["out"])
    if order["extends"]:
        report = extend(recipe, images, out, crew=crew, progress=Noted())
    else:
        options = ExtractionOptions(
            grid=PatchGrid(6, 6), batch_size=5, shard_rows=10, threads=1, resume=True, crew=crew
        )
        report = extract(recipe, images, out, options, progress=Noted())
    told = {"root": report.root_sha256, "done": report.shards_done, "redone": report.shards_redone}
    Path(order["report"]).write_text(json.dumps(told))


def main(orders: TextIO, answers: TextIO) -> None:
    for line in orders:
        child = os.fork()
        if child == 0:
            try:
                run(json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    no_syncs.remove()  # kills are at moments that are seconds of a run as it is elsewhere
    with os.fdopen(int(sys.argv[1])) as given, os.fdopen(int(sys.argv[2]), "w") as told:
        main(given, told)
