"""Nucleus sampling: y_t ~ p restricted to the smallest set of tokens with top_p of the mass."""

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
        float, Field(ge=COLDEST, description="What logits are divided by: below 1 sharper, above 1 flatter.")
    ] = 1.0
    seed: Seed = 0


def answer(run: Run, settings: NucleusSettings) -> Tensor:
    return follow(run, Branches([run.branch()]), sampler(run, settings.temperature, settings.top_p, settings.seed))


METHOD = Method(
    name="nucleus",
    formula="y_t ~ softmax(l / temperature) within the likeliest tokens that hold top_p of the mass",
    paper="Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (ICLR)",
    settings=NucleusSettings,
    answer=answer,
)
