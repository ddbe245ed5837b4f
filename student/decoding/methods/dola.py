"""DoLa, decoding by contrasting layers: subtracts the log-probabilities of an early layer.

    scores = log p_N(y) - log p_M(y),  where p_N(y) >= relative_top max p_N
    p_j = softmax(output layer of the hidden state after j layers),  M = the candidate with the largest JSD(p_N, p_j)

Chuang et al. 2024, DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models (ICLR).
p_N is the student's distribution; early hidden states enter the output layer without the final norm, as in the authors'
code and in transformers. JSD is as in the paper, and M is chosen for each row: the authors' code uses
1/2 KL(m || p_N) + 1/2 KL(m || p_j), with m their mean, and one M for the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ....errors import SettingsError
from ..core.batch_run import Run
from ..core.hooks import HiddenStates, decoder_layers, early_logits
from ..core.method import Method
from ..core.scorer import Branches, only_plausible
from ..core.search import search
from ..core.shared_settings import SearchSettings, repeated_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class DolaSettings(SearchSettings):
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Field(
            description="Candidates for M, as number of layers passed (0: the embedding); default: even numbers in the "
            "lower half, 0 to 14 of 32."
        ),
    ] = None
    relative_top: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Excludes tokens whose probability is below this fraction of the most likely token's; "
            "1 is greedy.",
        ),
    ] = 0.1

    def problems(self) -> list[str]:
        return [*SearchSettings.problems(self), *repeated_layers(self.layers)]


def answer(run: Run, settings: DolaSettings) -> Tensor:
    branch = run.branch()
    early = HiddenStates(candidate_layers(run, len(decoder_layers(branch)), settings.layers))
    branch.hooks = (early,)

    def combine(number: int, logits: Sequence[Tensor]) -> Tensor:
        last = logits[0].log_softmax(dim=-1)
        states = [early_logits(run.llava, early.states[layer], normed=False) for layer in early.depths]
        return contrast_layers(last, torch.stack(states).log_softmax(dim=-1), settings.relative_top)

    return search(run, Branches([branch], combine), settings)


def candidate_layers(run: Run, layers: int, requested: Sequence[int] | None) -> Sequence[int]:
    """Return the requested layers, or by default the even ones in the lower half.

    If the output layer is tied to the embedding, depth 0 would repeat the last token, so the default starts at 2, or is
    1 if the lower half is too short.

    Raises:
        SettingsError: a layer is not before the last.
    """
    if requested is None:
        tied = run.llava.lm_head.weight is run.llava.get_input_embeddings().weight
        return range(2 if tied else 0, layers // 2, 2) or (1,)
    beyond = [layer for layer in requested if layer >= layers]
    if beyond or not requested:
        raise SettingsError(
            f"decode.layers is {list(requested)}, but this student has {layers} layers. Choose from 0 to {layers - 1}"
        )
    return tuple(requested)


def contrast_layers(
    last: Float[Tensor, "rows vocab"], early: Float[Tensor, "layers rows vocab"], relative_top: float
) -> Float[Tensor, "rows vocab"]:
    """log p_N - log p_M, from log-probabilities; M is chosen for each row."""
    farthest_R = jensen_shannon(last, early).argmax(dim=0)
    selected_RV = early[farthest_R, torch.arange(len(farthest_R), device=early.device)]
    return only_plausible(last - selected_RV, last, relative_top)


def jensen_shannon(
    p: Float[Tensor, "rows vocab"], q: Float[Tensor, "layers rows vocab"]
) -> Float[Tensor, "layers rows"]:
    """Jensen-Shannon divergence of distributions given as log-probabilities, in nats."""
    middle = (p.exp() + q.exp()).div(2).clamp(min=torch.finfo(p.dtype).tiny).log()
    return 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=-1)


METHOD = Method(
    name="dola",
    formula="log p_N - log p_M, M the early layer farthest from the last by JSD, where p_N >= relative_top max p_N",
    paper="Chuang et al. 2024, DoLa (ICLR)",
    settings=DolaSettings,
    answer=answer,
)
