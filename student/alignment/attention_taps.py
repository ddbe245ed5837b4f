"""Taps that read and modify the fused attention (sdpa) of single layers.

transformers' fused kernels do not return attention weights or accept modified scores, and eager attention in every
layer costs much time and memory. A tap gets the queries and keys of one layer's attention (after rotary embedding), can
compute the few rows that it needs, and can return a bias that is added to the scores before the softmax. Layers without
a tap keep transformers' attention; tapped layers use the same sdpa kernel.

B batch, H query heads, G key heads, L queries, K keys, d head size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..compat.transformers import register_attention, sdpa_attention, use_attention

IMPLEMENTATION = "medalign_sdpa_taps"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenAttention:
    """Inputs of one attention call, passed to taps."""

    query: Float[Tensor, "batch heads length dim"]
    key: Float[Tensor, "batch key_heads keys dim"]
    value: Float[Tensor, "batch key_heads keys dim"]
    mask: Bool[Tensor, "#batch 1 length keys_of_mask"] | None
    """True where a query attends to a key; `None` means no padding, causal if the layer is."""
    scaling: float

    def scores(self, row: int = -1) -> Float[Tensor, "batch heads keys"]:
        """Scores of one query before mask and softmax, in float32; `row` is an index into the queries of this call."""
        query_BHd = self.query[:, :, row]
        grouped_BGRd = query_BHd.unflatten(1, (self.key.shape[1], -1))
        scores_BGRK: Tensor = (grouped_BGRd @ self.key.transpose(2, 3)).float() * self.scaling
        return scores_BGRK.flatten(1, 2)

    def weights(self, row: int = -1) -> Float[Tensor, "batch heads keys"]:
        """Attention weights of one query over all keys, without the biases of taps.

        Valid for the last query of a causal layer, or any query of a bidirectional layer (a vision tower).
        """
        scores_BHK = self.scores(row)
        if self.mask is not None:
            allowed_B1K = self.mask[:, :, row, : self.key.shape[2]]
            scores_BHK = scores_BHK.masked_fill(~allowed_B1K, float("-inf"))
        return scores_BHK.softmax(dim=-1)


Tap = Callable[[SeenAttention], Tensor | None]
"""Reads an attention call; returns `None`, or a bias for the scores, [B or 1, H or 1, rows, K]: one row for the last
query only, or one row for each of the L queries."""


def make_tappable(attention: Any) -> None:
    """Make one layer's attention call its taps; without taps it is plain sdpa."""
    if not hasattr(attention, "medalign_taps"):
        use_attention(attention, IMPLEMENTATION)
        attention.medalign_taps = []


@contextmanager
def tapped(attentions: Sequence[Any], taps: Sequence[Tap]) -> Iterator[None]:
    """Add one tap to each of several layers inside the block."""
    for attention, tap in zip(attentions, taps, strict=True):
        make_tappable(attention)
        attention.medalign_taps.append(tap)
    try:
        yield
    finally:
        for attention, tap in zip(attentions, taps, strict=True):
            attention.medalign_taps.remove(tap)


def _attention_with_taps(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa attention with the layer's taps and their biases."""
    sdpa = sdpa_attention()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    seen = SeenAttention(query=query, key=key, value=value, mask=attention_mask, scaling=scale)
    taps: list[Tap] = module.medalign_taps  # type: ignore[assignment]
    biases = [bias for tap in taps if (bias := tap(seen)) is not None]
    full = [bias for bias in biases if bias.shape[2] == query.shape[2]]
    last = [bias for bias in biases if bias.shape[2] != query.shape[2]]
    if full:
        kwargs["position_bias"] = _sum(full).to(query.dtype)
    output: Tensor = sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs)[0]
    if last:  # computes one row of scores instead of L
        row = _sum([*last, *(bias[:, :, -1:] for bias in full)])
        kwargs["position_bias"] = row.to(query.dtype)
        mask = None if attention_mask is None else attention_mask[:, :, -1:]
        output[:, -1:] = sdpa(module, query[:, :, -1:], key, value, mask, scaling=scaling, **kwargs)[0]
    return output, None


def _sum(biases: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, biases)


register_attention(IMPLEMENTATION, _attention_with_taps)
