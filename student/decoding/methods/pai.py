"""PAI, pay attention to the image: amplifies attention to the image, and subtracts the logits of the text alone.

    s_j <- s_j + alpha |s_j|  for the last query's scores of image columns j, in layers first_layer..last_layer
    scores = gamma log p(y | v, x, y_<t) + (1 - gamma) log p(y | x, y_<t),  where p(y | v) >= beta max p(y | v)

Liu, Zheng and Chen 2024, Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs
(ECCV), Eq. 3 and 5. The branch without the image is not amplified. The last query is the latest token at each step, and
the prompt's last token at prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ....errors import SettingsError
from ...alignment.attention_taps import SeenAttention
from ..core.batch_run import Run
from ..core.hooks import ScoreBias
from ..core.method import Method
from ..core.scorer import Branches, contrast, only_plausible
from ..core.search import search
from ..core.shared_settings import Beta, SearchSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class PaiSettings(SearchSettings):
    alpha: Annotated[float, Field(ge=0, description="Amplification of the scores of image columns.")] = 0.2
    guidance: Annotated[
        float, Field(ge=1, description="gamma, weight of the branch with the image; 1 disables the contrast.")
    ] = 1.1
    beta: Beta = 0.1
    first_layer: Annotated[int, Field(ge=0, description="First decoder layer to amplify, from 0.")] = 2
    last_layer: Annotated[
        int, Field(ge=0, description="Last layer to amplify, or the student's last layer if it has fewer.")
    ] = 31

    def problems(self) -> list[str]:
        problems = SearchSettings.problems(self)
        if self.first_layer > self.last_layer:
            problems.append(f"first_layer is {self.first_layer}, but last_layer is {self.last_layer}, which is lower")
        return problems


def answer(run: Run, settings: PaiSettings) -> Tensor:
    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        seen, unseen = (branch.log_softmax(dim=-1) for branch in logits)
        return only_plausible(contrast(seen, unseen, settings.guidance - 1), seen, settings.beta)

    branches = [run.branch(hooks=[amplifier(run, settings)]), run.branch(run.prompt.without_images())]
    return search(run, Branches(branches, combine), settings)


def amplifier(run: Run, settings: PaiSettings) -> ScoreBias:
    """Create the bias that amplifies the scores of image columns.

    Raises:
        SettingsError: the student has no layer to amplify.
    """
    layers = len(run.llava.model.language_model.layers)
    if settings.first_layer >= layers:
        raise SettingsError(
            f"decode.first_layer is {settings.first_layer}, but the student has layers 0 to {layers - 1}"
        )

    def amplify(seen: SeenAttention, is_image: Bool[Tensor, "rows keys"]) -> Float[Tensor, "rows heads 1 keys"]:
        return (settings.alpha * seen.scores().abs() * is_image[:, None])[:, :, None]

    return ScoreBias(range(settings.first_layer, min(settings.last_layer + 1, layers)), amplify)


METHOD = Method(
    name="pai",
    formula="image columns' scores + alpha |scores|; gamma log p(image) - (gamma-1) log p(text), where p >= beta max p",
    paper="Liu, Zheng and Chen 2024, Paying More Attention to Image (ECCV)",
    settings=PaiSettings,
    answer=answer,
    needs_image=True,
)
