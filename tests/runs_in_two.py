"""python -m torch.distributed.run ... runs_in_two.py JOBS: several training runs, one after the other.

One start of two interpreters for all of them. JOBS is a JSON list of {config, set, out}; beside each adapter stands
`seen.json`, the precisions of what the student is given and of the losses that the trainer takes out.
"""

import json
import os
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from medalign.pipeline.settings import load_settings  # noqa: E402
from medalign.pipeline.training import run_training  # noqa: E402
from medalign.progress import Silent  # noqa: E402
from medalign.student.aligned import AlignedStudent  # noqa: E402
from medalign.student.totals import LossTotals  # noqa: E402

forward, add = AlignedStudent.forward, LossTotals.add
seen: dict[str, str] = {}


def watched_forward(self, *args, **kwargs):
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            seen[name] = str(value.dtype)
    return forward(self, *args, **kwargs)


def watched_add(self, output, tokens, images):
    for name in ("loss_lm", "loss_vis", "loss_att"):
        if getattr(output, name) is not None:
            seen[name] = str(getattr(output, name).dtype)
    add(self, output, tokens, images)


AlignedStudent.forward, LossTotals.add = watched_forward, watched_add
for job in json.loads(Path(sys.argv[1]).read_text()):
    seen.clear()
    out = Path(job["out"])
    run_training(load_settings(Path(job["config"]), job["set"]), out, Silent(), resume=job.get("resume", False))
    if os.environ["RANK"] == "0":
        (out / "seen.json").write_text(json.dumps(seen))
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
