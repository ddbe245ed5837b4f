"""python killed_run.py CONFIG OUT MOMENT ...: for each triple, train in a process that is killed at that moment.

`step-N`: at the end of step N, before its checkpoint. `save-N`: in the middle of writing checkpoint N.
"""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from medalign.pipeline.training.settings_loading import load_settings  # noqa: E402
from medalign.pipeline.training.train import run_training  # noqa: E402
from medalign.progress import Silent  # noqa: E402
from medalign.student.training import student_trainer  # noqa: E402


class Killer(Silent):
    """Counts steps and ends the process without a chance to tidy up."""

    def __init__(self, last: int) -> None:
        self.steps, self.last = 0, last

    def advance(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(config: Path, out: Path, moment: str) -> None:
    kind, _, number = moment.partition("-")
    progress = Killer(int(number)) if kind == "step" else Silent()
    if kind == "save":

        def cut(checkpoint: Path) -> None:
            if checkpoint.name == f"checkpoint-{number}":
                os.truncate(checkpoint / "optimizer.pt", 100)
                os.kill(os.getpid(), signal.SIGKILL)
            mark(checkpoint)

        mark = student_trainer.mark_whole
        student_trainer.mark_whole = cut  # type: ignore[assignment]
    run_training(load_settings(config), out, progress)


arguments = iter(sys.argv[1:])
for config, out, moment in zip(arguments, arguments, arguments, strict=True):
    child = os.fork()
    if child == 0:
        train_and_die(Path(config), Path(out), moment)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), (moment, status)
    assert os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
print("killed")
