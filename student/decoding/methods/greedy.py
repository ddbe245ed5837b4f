"""Greedy decoding: y_t = argmax l(y | v, x, y_<t)."""

from dataclasses import dataclass

from torch import Tensor

from ..core.batch_run import Run
from ..core.method import Method
from ..core.scorer import Branches
from ..core.search import follow, likeliest


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedySettings:
    """Greedy decoding has no settings."""


def answer(run: Run, settings: GreedySettings) -> Tensor:
    return follow(run, Branches([run.branch()]), likeliest)


METHOD = Method(
    name="greedy",
    formula="the most likely token at each step",
    paper="-",
    settings=GreedySettings,
    answer=answer,
)
