"""DAMRO: subtracts the student's logits for an image with only the vision tower's outlier tokens.

    scores = (1 + alpha) l(y | v, x, y_<t) - alpha l(y | v_k, x, y_<t),  where p(y | v) >= beta max p(y | v)
    v_k = the k image tokens with the highest attention from the class token, in the layer that outputs them

Gong et al. 2024, DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object Hallucination (EMNLP), Eq. 4 to 6.
The negative prompt has k image tokens, in grid order. Attention is the tower's: a softmax for each head, then the mean
over heads (the released code treats the queries and keys of all heads as one head).
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
    alpha: Annotated[float, Field(ge=0, description="Weight of the contrast; 0.5 to 2 in the paper.")] = 0.5
    beta: Beta = 0.1
    outliers: Annotated[int, Field(ge=1, description="k, the number of image tokens in the negative branch.")] = 10


def answer(run: Run, settings: DamroSettings) -> Tensor:
    negative = run.prompt.with_image_tokens_at(outliers(run.class_attention(), settings.outliers))

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, unseen = logits
        return only_plausible(contrast(seen, unseen, settings.alpha), seen, settings.beta)

    return search(run, Branches([run.branch(), run.branch(negative)], combine), settings)


def outliers(attention: Float[Tensor, "images patches"], count: int) -> Int[Tensor, "images kept"]:
    """Return the indices of the `count` most attended tokens of each image, ascending.

    Raises:
        SettingsError: images do not have more tokens, so both branches would be equal.
    """
    if count >= attention.shape[1]:
        raise SettingsError(
            f"decode.outliers is {count}, but images have {attention.shape[1]} tokens in this student. Use fewer"
        )
    return attention.topk(count, dim=1).indices.sort(dim=1).values


METHOD = Method(
    name="damro",
    formula="(1+alpha) l(image) - alpha l(the k tokens the tower's class token attends to), where p >= beta max p",
    paper="Gong et al. 2024, DAMRO (EMNLP)",
    settings=DamroSettings,
    answer=answer,
    needs_image=True,
    needs_pixels=True,
)
