"""Mathematics of DoLa, AVISC, VHR and IMCCD on whole passes over the prompt and the answer so far."""

import math
from collections.abc import Callable
from statistics import mean, median_low, stdev

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


def reinforced_heads(look: Callable[..., tuple[Pass, Pass]], layers: list[int], alpha: float) -> dict[int, Tensor]:
    """VHR: a factor for each head of each layer, found one layer after the other.

    `look(change_heads=...)` gives the pass with the image and the one without.
    """
    factors: dict[int, Tensor] = {}
    for layer in layers:
        seen, unseen = (whole.heads[layer][:, -1] for whole in look(change_heads=multiplied(factors)))
        divergence = [float((a - b).square().sum().sqrt()) for a, b in zip(seen, unseen, strict=True)]
        strength = [float(b.square().sum()) for b in unseen]
        high, strong = (mean(values) + stdev(values) for values in (divergence, strength))
        divergence = [0.0 if d > high and s > strong else d for d, s in zip(divergence, strength, strict=True)]
        middle = median_low(divergence)
        factors[layer] = torch.tensor([alpha if d > middle else 1.0 for d in divergence])
    return factors


def multiplied(factors: dict[int, Tensor]) -> Callable[[int, Tensor], Tensor]:
    """Heads [heads, T, size] of a layer times its factors."""
    return lambda layer, heads: heads * factors[layer][:, None, None] if layer in factors else heads


class CrossModal:
    """IMCCD: scores of text tokens on image tokens, calibrated, and the values behind the largest of them distorted."""

    def __init__(self, images: list[list[int]], gamma: float, layers: int) -> None:
        """`images` are the places of each image's tokens."""
        self.images, self.gamma, self.layers = images, gamma, layers

    def pairs(self, length: int) -> list[tuple[int, int]]:
        image = {place for places in self.images for place in places}
        return [(i, j) for i in range(length) if i not in image for j in sorted(image) if j < i]

    def change_scores(self, layer: int, scores: Tensor, at: Callable[[Tensor], Tensor]) -> Tensor:
        if layer >= self.layers:
            return scores
        rest = {place for places in self.images for place in places[1:]}
        other = at(torch.tensor([place - sum(r <= place for r in rest) for place in range(scores.shape[1])]))
        scores = scores.clone()
        for i, j in self.pairs(scores.shape[1]):
            scores[:, i, j] = (1 - self.gamma) * scores[:, i, j] + self.gamma * other[:, i, j]
        return scores

    def mix(self, first_row: int) -> Callable[[int, Tensor, Tensor], Tensor]:
        """Of a pass whose rows from `first_row` on were computed each by itself, after the prompt."""

        def distorted(layer: int, scores: Tensor, values: Tensor) -> Tensor:
            weights = scores.softmax(dim=-1)
            heads = weights @ values
            image = [place for places in self.images for place in places]
            middle = values[:, image].mean(dim=(1, 2))
            everything = self.pairs(scores.shape[1])
            passes = [[pair for pair in everything if pair[0] < first_row]]
            passes += [[pair for pair in everything if pair[0] == row] for row in range(first_row, scores.shape[1])]
            for pairs in passes:
                limit = torch.stack([scores[:, i, j] for i, j in pairs]).mean()
                for i, j in pairs:
                    for head in range(len(scores)):
                        if scores[head, i, j] > limit:
                            heads[head, i] += weights[head, i, j] * (middle[head] - values[head, j])
            return heads

        return distorted
