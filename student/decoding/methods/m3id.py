"""M3ID, multi-modal mutual-information decoding: the longer the answer, the more the image is asked for.

    scores = log p(y | v, x, y_<t) + (1 - g_t) / g_t (log p(y | v, x, y_<t) - log p(y | x, y_<t)),  g_t = exp(-lambda t)

t = 1 for the first token. Favero et al. 2024, Multi-Modal Hallucination Control by Visual Information Grounding (CVPR).
The paper contrasts where max p(y | v) is below a threshold; what is compared everywhere as M3ID (AVISC's and the
MEDALIGN paper's baselines, so here) contrasts at every step and keeps tokens with p >= beta max p instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from ....errors import SettingsError
from ..core.batch_run import Run
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class M3idSettings(SearchSettings):
    decay: Annotated[float, Field(ge=0, description="lambda: how fast, per token, the image is forgotten.")] = 0.02
    beta: Beta = 0.1


LARGEST_EXPONENT = 60.0
"""Of a weight (1 - g) / g that log-probabilities can be multiplied by in float32."""


def answer(run: Run, settings: M3idSettings) -> Tensor:
    if settings.decay * run.max_new_tokens > LARGEST_EXPONENT:
        raise SettingsError(
            f"decode.decay is {settings.decay} and max_new_tokens {run.max_new_tokens}, so the last token's weight is "
            f"exp({settings.decay * run.max_new_tokens:g}), beyond what float32 holds: choose a decay of at most "
            f"{LARGEST_EXPONENT / run.max_new_tokens:.3g}"
        )

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, unseen = (branch.log_softmax(dim=-1) for branch in logits)
        weight = math.expm1(settings.decay * number)  # (1 - g) / g
        return only_plausible(contrast(seen, unseen, weight), seen, settings.beta)

    branches = [run.branch(), run.branch(run.prompt.without_images())]
    return search(run, Branches(branches, combine), settings)


METHOD = Method(
    name="m3id",
    formula="l_c + (1-g)/g (l_c - l_u), g = exp(-decay t), l_u without the image, where p >= beta max p",
    paper="Favero et al. 2024, Multi-Modal Hallucination Control by Visual Information Grounding (CVPR)",
    settings=M3idSettings,
    answer=answer,
    needs_image=True,
)
