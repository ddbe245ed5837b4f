"""M3ID, multi-modal mutual-information decoding: the weight of the image increases with the length of the answer.

    scores = log p(y | v, x, y_<t) + (1 - g_t) / g_t (log p(y | v, x, y_<t) - log p(y | x, y_<t)),  g_t = exp(-lambda t)

t = 1 for the first token. Favero et al. 2024, Multi-Modal Hallucination Control by Visual Information Grounding (CVPR).
The paper contrasts only if max p(y | v) is below a threshold. The common M3ID baseline (in AVISC, the MEDALIGN paper
and here) contrasts at every step and instead keeps tokens with p >= beta max p.
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
    decay: Annotated[float, Field(ge=0, description="lambda: rate, per token, at which the image is forgotten.")] = 0.02
    beta: Beta = 0.1


LARGEST_EXPONENT = 60.0
"""Largest exponent for which the weight (1 - g) / g can multiply log-probabilities in float32."""


def answer(run: Run, settings: M3idSettings) -> Tensor:
    if settings.decay * run.max_new_tokens > LARGEST_EXPONENT:
        raise SettingsError(
            f"decode.decay is {settings.decay} and max_new_tokens is {run.max_new_tokens}, so the last token's weight "
            f"is exp({settings.decay * run.max_new_tokens:g}), which is too large for float32. Use a decay of at most "
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
