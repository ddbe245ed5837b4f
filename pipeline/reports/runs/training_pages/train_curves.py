"""The curves of a training run from its log, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import polars as pl

from ...figures.figure import Figure
from ...figures.lines import lines
from ..wording import listed

Log = Mapping[str, Sequence[tuple[int, float]]]
"""Name of a value -> (step, value), by step."""
TERMS: Final = {
    "loss": "total loss",
    "loss_lm": "answers (loss_lm)",
    "loss_vis": "visual alignment (loss_vis)",
    "loss_att": "attention alignment (loss_att)",
    "loss_translation": "targets to their translations (loss_translation)",
    "loss_keep": "anchors to their old tokens (loss_keep)",
}
_EVALUATED: Final = "eval_"
_PART: Final = 5
"""The beginning and the end of a run are this part of its log: a fifth."""
_SAME: Final = 0.01
"""A smaller relative change is none."""
_LOOP: Final = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "data_wait": "share of time waiting for data",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How one loss changed: its means over the beginning and the end of the log."""

    title: str
    first: float
    last: float
    logged: int

    @property
    def direction(self) -> Literal["fell", "rose", "did not change"]:
        change = self.last - self.first
        if abs(change) <= _SAME * abs(self.first):
            return "did not change"
        return "fell" if change < 0 else "rose"

    def sentence(self) -> str:
        """The trend in words."""
        if self.direction == "did not change":
            return f"{self.title} did not change ({self.last:.4g})"
        return f"{self.title} {self.direction} from {self.first:.4g} to {self.last:.4g}"


def trends(log: Log) -> dict[str, Trend]:
    """The trend of every training loss with at least two logged values, by name."""
    found = {}
    for name, title in shown_terms(log).items():
        values = [value for _, value in log.get(name, ())]
        if len(values) > 1:
            part = max(1, len(values) // _PART)
            first, last = (sum(some) / part for some in (values[:part], values[-part:]))
            found[name] = Trend(title=title, first=first, last=last, logged=len(values))
    return found


def shown_terms(log: Log) -> dict[str, str]:
    """The titles of the logged losses; the total is left out if it has only one term."""
    terms = {name: title for name, title in TERMS.items() if log.get(name) or log.get(_EVALUATED + name)}
    return {name: title for name, title in terms.items() if name != "loss" or len(terms) > 2}


def loss_figure(log: Log) -> Figure | None:
    """One panel for each loss term; `None` if nothing was logged."""
    rows = [
        {"panel": title, "series": series, "x": step, "y": value}
        for name, title in shown_terms(log).items()
        for series, prefix in (("training", ""), ("validation", _EVALUATED))
        for step, value in log.get(prefix + name, ())
    ]
    if not rows:
        return None
    said = listed([trend.sentence() for trend in trends(log).values()]) or "each was logged once"
    return lines(
        name="losses",
        title="Loss terms",
        caption="Training values are means over the steps since the previous log entry.",
        alt=f"Curves of the losses over the steps: {said}.",
        points=pl.DataFrame(rows),
        x_label="step",
        y_label="loss",
    )


def loop_figure(log: Log) -> Figure | None:
    """Learning rate, gradient norm and waiting time; `None` if nothing was logged."""
    rows: list[dict[str, Any]] = [
        {"panel": title, "series": "training", "x": step, "y": value}
        for name, title in _LOOP.items()
        for step, value in log.get(name, ())
    ]
    if not rows:
        return None
    waited = mean_of(log, "data_wait")
    said = "" if waited is None else f"; the run waited for data during {waited:.0%} of the time"
    return lines(
        name="training-loop",
        title="Learning rate, gradient and data",
        caption="The gradient norm is the one before scaling to training.max_grad_norm.",
        alt=f"Curves of {listed(list(dict.fromkeys(row['panel'] for row in rows)))} over the steps{said}.",
        points=pl.DataFrame(rows),
        x_label="step",
        y_label="",
    )


def mean_of(log: Log, name: str) -> float | None:
    """The mean of a logged value; `None` if there is none."""
    values = [value for _, value in log.get(name, ())]
    return sum(values) / len(values) if values else None
