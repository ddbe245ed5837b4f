"""Nucleus sampling: y_t ~ p restricted to the smallest set of tokens with a probability of top_p."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from ..core.batch_run import Run
from ..core.method import Method
from ..core.scorer import Branches
from ..core.search import follow, sampler
from ..core.shared_settings import COLDEST, Seed, TopP


@dataclass(frozen=True, kw_only=True, slots=True)
class NucleusSettings:
    top_p: TopP = 0.9
    temperature: Annotated[
        float, Field(ge=COLDEST, description="Divisor of the logits: below 1 sharper, above 1 flatter.")
    ] = 1.0
    seed: Seed = 0


def answer(run: Run, settings: NucleusSettings) -> Tensor:
    return follow(run, Branches([run.branch()]), sampler(run, settings.temperature, settings.top_p, settings.seed))


METHOD = Method(
    name="nucleus",
    formula="y_t ~ softmax(l / temperature) among the most likely tokens with a total probability of top_p",
    paper="Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (ICLR)",
    settings=NucleusSettings,
    answer=answer,
)
