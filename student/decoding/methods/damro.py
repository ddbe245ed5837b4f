"""DAMRO: what the student says of the vision tower's few outlier tokens alone is subtracted.

    scores = (1 + alpha) l(y | v, x, y_<t) - alpha l(y | v_k, x, y_<t),  where p(y | v) >= beta max p(y | v)
    v_k = the k image tokens with the highest attention from the class token, in the layer that puts them out

Gong et al. 2024, DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object Hallucination (EMNLP), Eq. 4 to 6.
The negative prompt holds k tokens at the image's place, in their order on the grid. Attention is the tower's own: a
softmax for each head, then the mean over heads (the released code takes all heads' queries and keys as one head's).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from ....errors import SettingsError
from ..core.batch_run import Run
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class DamroSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast; the paper's lie in 0.5 to 2.")] = 0.5
    beta: Beta = 0.1
    outliers: Annotated[int, Field(ge=1, description="k, the image tokens that the negative branch keeps.")] = 10


def answer(run: Run, settings: DamroSettings) -> Tensor:
    negative = run.prompt.with_image_tokens_at(outliers(run.class_attention(), settings.outliers))

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, unseen = logits
        return only_plausible(contrast(seen, unseen, settings.alpha), seen, settings.beta)

    return search(run, Branches([run.branch(), run.branch(negative)], combine), settings)


def outliers(attention: Float[Tensor, "images patches"], count: int) -> Int[Tensor, "images kept"]:
    """Places of the `count` most attended tokens of each image, ascending.

    Raises:
        SettingsError: an image has no more tokens than that, so the negative branch would be the positive one.
    """
    if count >= attention.shape[1]:
        raise SettingsError(
            f"decode.outliers is {count}, but an image has {attention.shape[1]} tokens for this student: keep fewer"
        )
    return attention.topk(count, dim=1).indices.sort(dim=1).values


METHOD = Method(
    name="damro",
    formula="(1+alpha) l(image) - alpha l(the k tokens the tower's class token attends to), where p >= beta max p",
    paper="Gong et al. 2024, DAMRO (EMNLP)",
    settings=DamroSettings,
    answer=answer,
    needs_image=True,
)
