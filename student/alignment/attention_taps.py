"""Looking into fused attention, and bending it: taps on single layers, on sdpa.

transformers' fused kernels return no attention weights and take no change of scores, and eager attention in every
layer costs much time and memory. A tap sees the queries and keys of one layer's attention (after rotary embedding),
may compute from them the few rows that it needs, and may return a bias that is added to the scores before the softmax.
Layers without a tap keep transformers' own attention; the kernel of a tapped layer is the same sdpa.

B batch, H query heads, G key heads, L queries, K keys, d size of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..compat.transformers import register_attention, sdpa_attention, use_attention

IMPLEMENTATION = "medalign_sdpa_taps"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenAttention:
    """One attention call, as a tap sees it."""

    query: Float[Tensor, "batch heads length dim"]
    key: Float[Tensor, "batch key_heads keys dim"]
    value: Float[Tensor, "batch key_heads keys dim"]
    mask: Tensor | None
    """The layer's own (bool or additive, [B, 1, L, K]); `None`: no padding, causal where the layer is."""
    scaling: float

    def scores(self, row: int = -1) -> Float[Tensor, "batch heads keys"]:
        """Scores of one query before mask and softmax, in float32; `row` counts along the queries of this call."""
        query_BHd = self.query[:, :, row]
        grouped_BGRd = query_BHd.unflatten(1, (self.key.shape[1], -1))
        scores_BGRK: Tensor = (grouped_BGRd @ self.key.transpose(2, 3)).float() * self.scaling
        return scores_BGRK.flatten(1, 2)

    def weights(self, row: int = -1) -> Float[Tensor, "batch heads keys"]:
        """Attention of one query over all keys, without any tap's bias.

        The last query of a causal layer, or any query of one that looks both ways (a vision tower).
        """
        scores_BHK = self.scores(row)
        if self.mask is not None:
            allowed_B1K = self.mask[:, :, row, : self.key.shape[2]]
            if allowed_B1K.dtype == torch.bool:
                scores_BHK = scores_BHK.masked_fill(~allowed_B1K, float("-inf"))
            else:
                scores_BHK = scores_BHK + allowed_B1K.float()
        return scores_BHK.softmax(dim=-1)


Tap = Callable[[SeenAttention], Tensor | None]
"""Looks; returns `None`, or what is added to the scores, [B or 1, H or 1, rows, K]: one row is for the last query
alone, else one for each of the L queries."""


def make_tappable(attention: Any) -> None:
    """Give one layer's attention the kernel that shows itself to taps; without one it is plain sdpa."""
    if not hasattr(attention, "medalign_taps"):
        use_attention(attention, IMPLEMENTATION)
        attention.medalign_taps = []


@contextmanager
def tapped(attentions: Sequence[Any], taps: Sequence[Tap]) -> Iterator[None]:
    """One tap on each of several layers, for the time of the block."""
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
    """transformers' sdpa attention, shown to the layer's taps and with their biases."""
    sdpa = sdpa_attention()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    seen = SeenAttention(query=query, key=key, value=value, mask=attention_mask, scaling=scale)
    taps: list[Tap] = module.medalign_taps  # type: ignore[assignment]
    biases = [bias for tap in taps if (bias := tap(seen)) is not None]
    whole = [bias for bias in biases if bias.shape[2] == query.shape[2]]
    last = [bias for bias in biases if bias.shape[2] != query.shape[2]]
    if whole:
        kwargs["position_bias"] = _sum(whole).to(query.dtype)
    output: Tensor = sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs)[0]
    if last:  # one row of scores instead of L
        row = _sum([*last, *(bias[:, :, -1:] for bias in whole)])
        kwargs["position_bias"] = row.to(query.dtype)
        mask = None if attention_mask is None else attention_mask[:, :, -1:]
        output[:, -1:] = sdpa(module, query[:, :, -1:], key, value, mask, scaling=scaling, **kwargs)[0]
    return output, None


def _sum(biases: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, biases)


register_attention(IMPLEMENTATION, _attention_with_taps)
