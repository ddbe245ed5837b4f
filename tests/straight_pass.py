"""A student's forward pass over one whole sequence: plain matrices, no cache, no padding, nothing fused.

The vision tower and the projector are the model's own; everything after them is written out here, from the model's
weights, so that a decoding method can be checked against a version with every attention matrix in the open.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, silu, softmax


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass computed. T tokens, D width, V vocabulary."""

    logits: Tensor
    """[T, V]"""
    hidden: list[Tensor]
    """[T, D] each: the embeddings, then each block's output, before the last norm."""
    attention: list[Tensor]
    """[heads, T, T] of each block."""
    heads: list[Tensor]
    """[heads, T, size] of each block: what each head puts out, before o_proj."""


def image_tokens(student, pixels: Tensor) -> Tensor:
    """[images * patches, D]"""
    return torch.cat(student.model.llava.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output)


@torch.no_grad()
def straight_pass(
    student,
    ids: Sequence[int],
    images: Tensor | None,
    *,
    change_scores: Callable[[int, Tensor, Callable[[Tensor], Tensor]], Tensor] = lambda layer, scores, at: scores,
    mix: Callable[[int, Tensor, Tensor], Tensor] = lambda layer, scores, values: softmax(scores, dim=-1) @ values,
    change_heads: Callable[[int, Tensor], Tensor] = lambda layer, heads: heads,
) -> Pass:
    """One pass over `ids`, whose image tokens are `images` [images * patches, D].

    `change_scores` sees each block's scores [heads, T, T] (scaled, future at -inf) and what gives them with tokens at
    other positions; `mix` makes the heads' outputs [heads, T, size] of scores and values; `change_heads` sees those.
    """
    llava = student.model.llava
    model, token = llava.model.language_model, torch.tensor(list(ids))
    hidden = model.embed_tokens(token)
    where = token == student.model.image_token_id
    if images is not None:
        hidden[where] = images
    places = torch.arange(len(token))
    outputs, attention, all_heads = [hidden], [], []
    for index, block in enumerate(model.layers):
        rotation = student.model.rotations.get(index)
        if rotation is not None and images is not None:
            hidden = hidden.clone()
            hidden[where] = hidden[where] + hidden[where] @ rotation.weight.T
        seen = _norm(hidden, block.input_layernorm)
        q, k, v = (
            linear(seen, part.weight, part.bias).unflatten(1, (-1, block.self_attn.head_dim)).transpose(0, 1)
            for part in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)
        )
        theta = model.config.rope_parameters["rope_theta"]
        shared = q.shape[0] // k.shape[0]
        k, v = (part.repeat_interleave(shared, dim=0) for part in (k, v))

        def scores_at(places, q=q, k=k, theta=theta):
            scores = _turn(q, places, theta) @ _turn(k, places, theta).transpose(1, 2) / q.shape[-1] ** 0.5
            future = torch.ones(len(places), len(places), dtype=torch.bool).triu(1)
            return scores.masked_fill(future, -torch.inf)

        scores = change_scores(index, scores_at(places), scores_at)
        attention.append(softmax(scores, dim=-1))
        heads = mix(index, scores, v)
        all_heads.append(heads)
        heads = change_heads(index, heads)
        hidden = hidden + linear(heads.transpose(0, 1).flatten(1), block.self_attn.o_proj.weight)
        seen = _norm(hidden, block.post_attention_layernorm)
        mlp = block.mlp
        inner = silu(linear(seen, mlp.gate_proj.weight)) * linear(seen, mlp.up_proj.weight)
        hidden = hidden + linear(inner, mlp.down_proj.weight)
        outputs.append(hidden)
    logits = linear(_norm(hidden, model.norm), llava.lm_head.weight)
    return Pass(logits=logits, hidden=outputs, attention=attention, heads=all_heads)


def _norm(hidden: Tensor, norm) -> Tensor:
    return hidden / (hidden.square().mean(dim=-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight


def _turn(heads: Tensor, places: Tensor, theta: float) -> Tensor:
    """Rotary positions of [heads, T, size]."""
    half = heads.shape[-1] // 2
    angle = places[:, None] * theta ** (-torch.arange(half) / half)
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)
