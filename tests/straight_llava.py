"""A LLaVA's forward pass written out in plain torch, from tensors under their original names."""

from dataclasses import dataclass

import torch
from originals import TOWER_NAME, Shape
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu, softmax

IMAGE = -200
"""Stands for one whole image in a list of token ids, as in the original projects."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a forward pass shows. N image tokens in the sequence."""

    logits: Tensor
    """[length, rows]"""
    is_image: Tensor
    """[length], True at image tokens."""
    tokens: Tensor
    """[N, width], image tokens as decoder layer `layer` gets them."""
    attention: Tensor
    """[heads, length, length], the attention weights of decoder layer `layer`, a row for each query."""


def straight_forward(
    tensors: dict[str, Tensor],
    shape: Shape,
    ids: list[int],
    pixels: Tensor,
    W: Tensor | None = None,
    layer: int = 0,
) -> Seen:
    """One sequence whose images `pixels` [images, 3, side, side] stand at IMAGE.

    With W, the image tokens become (I + W) X at the input of decoder layer `layer`.
    """
    tensors = {name: value.float() for name, value in tensors.items()}
    images = iter(image_tokens(tensors, shape, pixels))
    pieces, marks = [], []
    for number in ids:
        piece = next(images) if number == IMAGE else tensors["model.embed_tokens.weight"][number][None]
        pieces.append(piece)
        marks += [number == IMAGE] * len(piece)
    hidden, is_image = torch.cat(pieces), torch.tensor(marks)
    for index in range(shape.layers):
        if index == layer and W is not None:
            hidden = hidden.clone()
            hidden[is_image] = hidden[is_image] + hidden[is_image] @ W.T
        entering = hidden
        hidden, attention = decoder_layer(tensors, shape, index, hidden)
        if index == layer:
            tokens, at_layer = entering[is_image], attention
    hidden = rms_norm(hidden, tensors["model.norm.weight"], shape.eps)
    logits = hidden @ tensors["model.embed_tokens.weight" if shape.tied else "lm_head.weight"].T
    return Seen(logits=logits, is_image=is_image, tokens=tokens, attention=at_layer)


def image_tokens(tensors: dict[str, Tensor], shape: Shape, pixels: Tensor) -> Tensor:
    """[images, patches, width]: the tower up to its last layer but one, no class token, and the projector."""
    hidden = torch.stack([tower(tensors, shape, image) for image in pixels])
    first, second = "model.mm_projector.0", "model.mm_projector.2"
    hidden = gelu(hidden @ tensors[f"{first}.weight"].T + tensors[f"{first}.bias"])
    return hidden @ tensors[f"{second}.weight"].T + tensors[f"{second}.bias"]


def tower(tensors: dict[str, Tensor], shape: Shape, image: Tensor) -> Tensor:
    name, side = f"{TOWER_NAME}vision_model.", shape.image // shape.patch
    kernel = tensors[f"{name}embeddings.patch_embedding.weight"]
    cells = [
        image[:, row * shape.patch : (row + 1) * shape.patch, column * shape.patch : (column + 1) * shape.patch]
        for row in range(side)
        for column in range(side)
    ]
    patches = torch.stack([(kernel * cell).sum(dim=(1, 2, 3)) for cell in cells])
    hidden = torch.cat([tensors[f"{name}embeddings.class_embedding"][None], patches])
    hidden = hidden + tensors[f"{name}embeddings.position_embedding.weight"]

    def norm(hidden: Tensor, part: str) -> Tensor:
        weight, bias = tensors[f"{part}.weight"], tensors[f"{part}.bias"]
        return layer_norm(hidden, (len(weight),), weight, bias, 1e-5)

    def linear(hidden: Tensor, part: str) -> Tensor:
        return hidden @ tensors[f"{part}.weight"].T + tensors[f"{part}.bias"]

    hidden = norm(hidden, f"{name}pre_layrnorm")
    for index in range(shape.tower_layers - 1):
        block = f"{name}encoder.layers.{index}."
        seen = norm(hidden, f"{block}layer_norm1")
        query, key, value = (
            linear(seen, f"{block}self_attn.{part}_proj").unflatten(1, (shape.tower_heads, -1)).transpose(0, 1)
            for part in "qkv"
        )
        weights = softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
        hidden = hidden + linear((weights @ value).transpose(0, 1).flatten(1), f"{block}self_attn.out_proj")
        inner = linear(norm(hidden, f"{block}layer_norm2"), f"{block}mlp.fc1")
        hidden = hidden + linear(inner * torch.sigmoid(1.702 * inner), f"{block}mlp.fc2")
    return hidden[1:]


def decoder_layer(tensors: dict[str, Tensor], shape: Shape, index: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Its output, and its attention weights [heads, length, length]."""
    name = f"model.layers.{index}."

    def linear(hidden: Tensor, part: str) -> Tensor:
        return hidden @ tensors[f"{name}{part}.weight"].T + tensors.get(f"{name}{part}.bias", torch.zeros(1))

    seen = rms_norm(hidden, tensors[f"{name}input_layernorm.weight"], shape.eps)
    query = rotate(linear(seen, "self_attn.q_proj").unflatten(1, (shape.heads, shape.head)), shape.theta)
    key = rotate(linear(seen, "self_attn.k_proj").unflatten(1, (shape.kv_heads, shape.head)), shape.theta)
    value = linear(seen, "self_attn.v_proj").unflatten(1, (shape.kv_heads, shape.head))
    future = torch.ones(len(hidden), len(hidden), dtype=torch.bool).triu(1)
    heads, weights = [], []
    for head in range(shape.heads):
        shared = head // (shape.heads // shape.kv_heads)
        scores = query[:, head] @ key[:, shared].T / shape.head**0.5
        weights.append(softmax(scores.masked_fill(future, -torch.inf), dim=-1))
        heads.append(weights[-1] @ value[:, shared])
    hidden = hidden + linear(torch.cat(heads, dim=1), "self_attn.o_proj")
    seen = rms_norm(hidden, tensors[f"{name}post_attention_layernorm.weight"], shape.eps)
    inner = silu(linear(seen, "mlp.gate_proj")) * linear(seen, "mlp.up_proj")
    return hidden + linear(inner, "mlp.down_proj"), torch.stack(weights)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    return hidden / (hidden.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def rotate(heads: Tensor, theta: float) -> Tensor:
    """Rotary positions of [length, heads, size]: pairs (i, i + size / 2) turned by position x theta^(-2i / size)."""
    half = heads.shape[-1] // 2
    angle = torch.arange(len(heads))[:, None] * theta ** (-torch.arange(half) / half)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
