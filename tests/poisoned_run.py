"""python poisoned_run.py CONFIG OUT: train; one of two processes reads targets that are NaN from its third batch on."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)

from medalign.errors import MedalignError  # noqa: E402
from medalign.pipeline.settings import load_settings  # noqa: E402
from medalign.pipeline.training import run_training  # noqa: E402
from medalign.progress import Silent  # noqa: E402
from medalign.student.data import AlignmentDataset  # noqa: E402
from medalign.student.processes import Processes  # noqa: E402

read = AlignmentDataset.__getitems__
batches = 0


def poisoned(self, indices):
    global batches
    batches += 1
    items = read(self, indices)
    if batches < 3 or Processes.of_environment().rank == 0:
        return items
    return [item if item.E_v is None else replace(item, E_v=item.E_v * float("nan")) for item in items]


AlignmentDataset.__getitems__ = poisoned
try:
    run_training(load_settings(Path(sys.argv[1])), Path(sys.argv[2]), Silent())
except MedalignError as error:
    print(error)
