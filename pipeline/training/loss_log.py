"""The losses in the log of a training run, and their curve on the terminal."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from ...plain_text import shown
from ...student.training.training_run import LOG_FILE
from ..text_curve import draw_curve, has_braille

_DRAWN = {"loss": "training loss", "eval_loss": "validation loss"}
"""Names in the log -> titles of the curves on the terminal."""
_WHOLE_RUN = "train_loss"
"""The mean over the whole run, and so on no curve."""


def read_losses(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every loss term in a run's log: its name (`loss`, `loss_vis`, `eval_loss_lm`, ...) -> (step, value), by step.

    A line that is not complete is skipped, because the run may still be writing it. Empty without a log.
    """
    return {name: values for name, values in read_log(out).items() if "loss" in name and name != _WHOLE_RUN}


def read_log(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every value in a run's log, also `learning_rate`, `grad_norm` and `data_wait`, as in `read_losses`."""
    try:
        lines = (out / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, step, value in _values_of(line):
            values.setdefault(name, {})[step] = value
    return {name: sorted(found.items()) for name, found in values.items()}


def show_loss_curves(out: Path) -> None:
    """Print small curves of the losses in a run's log to stderr; nothing for a loss with fewer than two values."""
    losses = read_losses(out)
    for name, title in _DRAWN.items():
        points = [(float(step), value) for step, value in losses.get(name, ())]
        if len(points) > 1:
            heading = f"{title}: {points[0][1]:.4g} at first, {points[-1][1]:.4g} at the end"
            for line in draw_curve(heading, points, x_label="step", braille=has_braille(sys.stderr)):
                print(shown(line), file=sys.stderr)


def _values_of(line: str) -> list[tuple[str, int, float]]:
    """The finite numbers of one line."""
    try:
        logged: Any = json.loads(line)
        step = int(logged["step"])
        pairs = [(name, float(value)) for name, value in logged.items() if name != "step"]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return []
    return [(name, step, value) for name, value in pairs if math.isfinite(value)]
