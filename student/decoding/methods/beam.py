"""Beam search: the answer with the highest log-probability per token among those that the beams find."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from ..core.batch_run import Run
from ..core.beams import beam_search
from ..core.method import Method
from ..core.scorer import Branches


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSettings:
    num_beams: Annotated[
        int,
        Field(
            ge=2, description="Number of beams; the default is that of the MEDALIGN paper. One beam is greedy decoding."
        ),
    ] = 5


def answer(run: Run, settings: BeamSettings) -> Tensor:
    return beam_search(run, Branches([run.branch()]), settings.num_beams)


METHOD = Method(
    name="beam",
    formula="argmax (1/T) sum_t log p(y_t | v, x, y_<t), over what the beams find",
    paper="-",
    settings=BeamSettings,
    answer=answer,
)
