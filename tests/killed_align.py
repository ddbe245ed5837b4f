"""python killed_align.py CONFIG OUT STEP: align in a process that is killed with SIGKILL after this step."""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from medalign.pipeline.align.align_settings import load_align_settings  # noqa: E402
from medalign.pipeline.align.align_student import run_align  # noqa: E402
from medalign.progress import Silent  # noqa: E402


class Killer(Silent):
    """Counts steps of the training, which is the stage after the preparation."""

    def __init__(self, last: int) -> None:
        self.steps, self.last, self.training = 0, last, False

    def start(self, label: str, total: int | None) -> None:
        self.training = label == "training"

    def advance(self, steps: int = 1) -> None:
        self.steps += steps if self.training else 0
        if self.steps == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


config, out, step = sys.argv[1:]
child = os.fork()
if child == 0:
    run_align(load_align_settings(Path(config), Path(out), resume=False), Path(out), Killer(int(step)))
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.WTERMSIG(status) == signal.SIGKILL, status
print("killed")
