"""runs_in_two.py JOBS, in each of two processes: several training runs, one after the other.

JOBS is a JSON list of {config, set, out}; beside each adapter stands
`seen.json`, the precisions of what the student is given and of the losses that the trainer takes out. A job with
`command` runs as the command line does, one with `align` is a run of `student align`; in one with `poisoned` the second
process reads targets that are NaN from its third batch on, and both print the error.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)

from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from medalign.cli import app  # noqa: E402
from medalign.errors import MedalignError  # noqa: E402
from medalign.pipeline.align.align_settings import load_align_settings  # noqa: E402
from medalign.pipeline.align.align_student import run_align  # noqa: E402
from medalign.pipeline.training.settings_loading import load_settings  # noqa: E402
from medalign.pipeline.training.train import run_training  # noqa: E402
from medalign.progress import Silent  # noqa: E402
from medalign.student.alignment.aligned_student import AlignedStudent  # noqa: E402
from medalign.student.inputs.alignment_dataset import AlignmentDataset  # noqa: E402
from medalign.student.training.loss_totals import LossTotals  # noqa: E402

forward, add = AlignedStudent.forward, LossTotals.add
seen: dict[str, str] = {}


def watched_forward(self, *args, **kwargs):
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            seen[name] = str(value.dtype)
    return forward(self, *args, **kwargs)


def watched_add(self, output, *divisors):
    for name in ("loss_lm", "loss_vis", "loss_att"):
        if getattr(output, name) is not None:
            seen[name] = str(getattr(output, name).dtype)
    add(self, output, *divisors)


def poison() -> None:
    read, batches = AlignmentDataset.__getitems__, 0

    def poisoned(self, indices):
        nonlocal batches
        batches += 1
        items = read(self, indices)
        if batches < 3 or os.environ["RANK"] == "0":
            return items
        return [item if item.E_v is None else replace(item, E_v=item.E_v * float("nan")) for item in items]

    AlignmentDataset.__getitems__ = poisoned


def run(job: dict[str, Any]) -> None:
    if job["command"]:
        overrides = [word for override in job["set"] for word in ("--set", override)]
        app(["student", "train", job["config"], "--out", job["out"], *overrides], standalone_mode=False)
        return
    if job.get("align"):
        out = Path(job["out"])
        run_align(load_align_settings(Path(job["config"]), out, resume=False), out, Silent())
        return
    if job["poisoned"]:
        poison()
    try:
        run_training(load_settings(Path(job["config"]), job["set"]), Path(job["out"]), Silent())
    except MedalignError as error:
        if not job["poisoned"]:
            raise
        print(f"rank {os.environ['RANK']}: {error}", flush=True)


AlignedStudent.forward, LossTotals.add = watched_forward, watched_add
for job in json.loads(Path(sys.argv[1]).read_text()):
    seen.clear()
    run(job)
    if os.environ["RANK"] == "0" and not job["poisoned"]:
        (Path(job["out"]) / "seen.json").write_text(json.dumps(seen))
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
