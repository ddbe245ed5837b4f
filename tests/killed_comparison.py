"""python killed_comparison.py SPEC OUT BATCHES: compare in a process that is killed after so many batches."""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from medalign.pipeline.evaluation.comparison.compare import run_comparison  # noqa: E402
from medalign.pipeline.evaluation.comparison.spec import load_comparison  # noqa: E402
from medalign.progress import Silent  # noqa: E402


class Killer(Silent):
    """Ends the process without a chance to tidy up."""

    def __init__(self, last: int) -> None:
        self.left = last

    def advance(self, steps: int = 1) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


spec, out, batches = sys.argv[1:]
run_comparison(load_comparison(Path(spec)), Path(out), (), Killer(int(batches)), device="cpu")
