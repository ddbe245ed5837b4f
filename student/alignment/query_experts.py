"""MoE-Q: dense LoRA experts on the queries of an aligned layer, mixed by a router on one token of each sample.

B batch, L positions, d width, q width of the queries, E experts, r rank.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError
from ..compat.transformers import PromptCache
from ..precision import as_stored
from .observation import Observation

EXPERTS, RANK, ALPHA = 4, 16, 8
"""Those of the released code."""


class QueryExperts(nn.Module):
    """Adds (ALPHA / RANK) sum over e of g[e] B_e A_e x to the query projection of every input x of a sample.

    The gates g are a softmax over the experts of a linear router on one token. A is initialized as LoRA's, B is zero,
    so queries do not change at first. Weights are float32, and are applied in the dtype of the inputs.
    """

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(EXPERTS, RANK, width))
        self.B = nn.Parameter(torch.zeros(EXPERTS, queries, RANK))
        self.router = nn.Parameter(torch.empty(EXPERTS, width))
        for weight in (*self.A, self.router):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def gates(
        self, hidden_BLd: Float[Tensor, "batch length width"], position_B: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch experts"]:
        """Gates of each sample, from the token at its position."""
        token_Bd = hidden_BLd[torch.arange(len(hidden_BLd), device=hidden_BLd.device), position_B]
        return (token_Bd.float() @ self.router.T).float().softmax(dim=-1)

    def forward(
        self, hidden_BLd: Float[Tensor, "batch length width"], gates_BE: Float[Tensor, "batch experts"]
    ) -> Float[Tensor, "batch length queries"]:
        """What is added to the queries."""
        dtype = hidden_BLd.dtype
        inner_BLEr = torch.einsum("bld,erd->bler", hidden_BLd, self.A.to(dtype))
        mixed_BLEr = inner_BLEr * (gates_BE * (ALPHA / RANK)).to(inner_BLEr.dtype)[:, None, :, None]
        return torch.einsum("bler,eqr->blq", mixed_BLEr, self.B.to(dtype))


def query_width(decoder_layer: Any, layer: int) -> int:
    """Width of a decoder layer's queries.

    Raises:
        SettingsError: the layer has no query projection of its own.
    """
    projection = getattr(decoder_layer.self_attn, "q_proj", None)
    if projection is None:
        raise SettingsError(
            "alignment.query_experts needs a language model with a query projection (q_proj), but decoder layer "
            f"{layer} has none: set query_experts to false"
        )
    return int(projection.out_features)


def add_experts(
    experts: QueryExperts,
    layer: int,
    cache: PromptCache | None,
    observation: Observation,
    module: nn.Module,
    args: tuple[Any, ...],
    output: Tensor,
) -> Tensor:
    """A forward hook of a layer's query projection, for one pass: the queries with what the experts add.

    The gates are those of the prompt's last token: in training at the positions of `observation`, in generation at the
    end of the prompts, which are padded on the left. They are kept in the cache for the tokens of the answer.

    Raises:
        SettingsError: the pass is neither.
    """
    hidden_BLd = args[0]
    if cache is not None and layer in cache.of_prompt:
        return _added(output, experts(hidden_BLd, cache.of_prompt[layer]))
    ends_B = observation.prompt_ends
    if ends_B is None and cache is not None:
        ends_B = torch.full((len(hidden_BLd),), hidden_BLd.shape[1] - 1, device=hidden_BLd.device)
    if ends_B is None:
        raise SettingsError(
            f"decoder layer {layer} of this student has query experts (alignment.query_experts), whose router reads "
            "the last token of a prompt. Only `medalign student train`, `evaluate`, `generate` and `compare` know "
            "where prompts end; no other command runs this student"
        )
    with as_stored(hidden_BLd.device):
        gates_BE = experts.gates(hidden_BLd, ends_B)
    if cache is not None:
        cache.of_prompt[layer] = gates_BE
    return _added(output, experts(hidden_BLd, gates_BE))


def _added(output: Tensor, change: Tensor) -> Tensor:
    return output + change.to(output.dtype)
