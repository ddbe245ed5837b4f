"""Scores of one step of DoLa and AVISC, from whole passes over the prompt and the answer so far."""

import math

import torch
from straight_pass import Pass
from torch import Tensor


def dola(seen: Pass, head: Tensor, layers: list[int], relative_top: float) -> tuple[Tensor, int]:
    """log p_N - log p_M over the plausible tokens, and M, the layer whose distribution is farthest from the last's."""
    last = seen.logits[-1].softmax(dim=-1)
    early = {layer: (seen.hidden[layer][-1] @ head.T).softmax(dim=-1) for layer in layers}
    layer = max(early, key=lambda number: _jensen_shannon(last, early[number]))
    scores = last.log() - early[layer].log()
    return scores.masked_fill(last < relative_top * last.max(), -math.inf), layer


def _jensen_shannon(p: Tensor, q: Tensor) -> float:
    middle = (p + q) / 2
    return float(0.5 * (p * (p / middle).log()).sum() + 0.5 * (q * (q / middle).log()).sum())


def blind_tokens(prompt: Pass, image: list[int], gamma: float, lamb: float) -> Tensor:
    """AVISC: which image tokens the last prompt token attends to more than mean + lambda sigma, in the layers that
    look at the image most and hold a share gamma of all layers' attention to it."""
    rows = [attention.mean(dim=0)[-1, image] for attention in prompt.attention]
    shares = torch.stack([row.sum() for row in rows])
    shares = shares / shares.sum()
    chosen, total = [], 0.0
    for layer in shares.argsort(descending=True).tolist():
        chosen.append(layer)
        total += float(shares[layer])
        if total >= gamma:
            break
    row = torch.stack([rows[layer] for layer in chosen]).mean(dim=0)
    return row >= row.mean() + lamb * row.std()


def contrast(positive: Tensor, negative: Tensor, alpha: float, beta: float) -> Tensor:
    """(1 + alpha) positive - alpha negative over tokens with logit >= log beta + the largest."""
    scores = (1 + alpha) * positive - alpha * negative
    return scores.masked_fill(positive < math.log(beta) + positive.max(), -math.inf)
