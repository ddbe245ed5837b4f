"""RadGraph's span model: the parts of DyGIE++ (Wadden et al. 2019) for entities and relations.

Every sequence of words up to a maximum width is a span. One network labels spans, a second selects the most promising
spans, and a third labels every ordered pair of these.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

# W words, S spans, K kept spans, D width of words, E width of spans

NO_LABEL_SCORE = 0.0
"""Score of having no label, in both networks: a label needs a positive score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanSettings:
    """Settings in an archive's config.json that determine the model."""

    max_span_width: int
    """Maximum number of words in a span."""
    feature_size: int
    """Width of the embedding of a span's width."""
    spans_per_word: float
    """Spans kept for relations, for each word."""
    layers: int
    hidden: int
    """Layers and width of all three networks."""


def feedforward(width: int, settings: SpanSettings, out: int) -> nn.Sequential:
    """Linear and ReLU layers, then one score for each of `out` labels."""
    widths = [width] + [settings.hidden] * settings.layers
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out))


class SpanModel(nn.Module):
    """Scores of entities and relations from embedded words."""

    def __init__(self, word_width: int, settings: SpanSettings, *, entity_labels: int, relation_labels: int) -> None:
        """Create the model; label counts do not include the empty label."""
        super().__init__()
        self.settings = settings
        span_width = 2 * word_width + settings.feature_size
        self.span_width_embedding = nn.Embedding(settings.max_span_width, settings.feature_size)
        self.entity_scorer = feedforward(span_width, settings, entity_labels)
        self.span_scorer = feedforward(span_width, settings, 1)
        self.relation_scorer = feedforward(3 * span_width, settings, relation_labels)

    def spans(self, words: int) -> Integer[Tensor, "s 2"]:
        """First and last word of every span, by first word, then by width."""
        width = self.settings.max_span_width
        pairs = [(start, end) for start in range(words) for end in range(start, min(start + width, words))]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)

    def embed(self, words_WD: Float[Tensor, "w d"], spans_S2: Integer[Tensor, "s 2"]) -> Float[Tensor, "s e"]:
        """First word, last word and width of each span."""
        starts, ends = spans_S2.unbind(dim=1)
        return torch.cat([words_WD[starts], words_WD[ends], self.span_width_embedding(ends - starts)], dim=-1)

    def entities(self, spans_SE: Float[Tensor, "s e"]) -> Integer[Tensor, " s"]:
        """Label of each span; -1 for no label."""
        return _best_label(self.entity_scorer(spans_SE))

    def kept(self, spans_SE: Float[Tensor, "s e"], words: int) -> tuple[Integer[Tensor, " k"], Float[Tensor, " k"]]:
        """Select the spans for relations; returns their indices in ascending order, and their scores."""
        scores_S = self.span_scorer(spans_SE).squeeze(-1)
        keep = min(math.ceil(words * self.settings.spans_per_word), len(scores_S))
        kept_K = scores_S.topk(max(keep, 1)).indices.sort().values
        return kept_K, scores_S[kept_K]

    def relations(self, kept_KE: Float[Tensor, "k e"], scores_K: Float[Tensor, " k"]) -> Integer[Tensor, "k k"]:
        """Label of each ordered pair of selected spans; -1 for no label."""
        count = len(kept_KE)
        first = kept_KE[:, None].expand(-1, count, -1)
        second = kept_KE[None].expand(count, -1, -1)
        labels = self.relation_scorer(torch.cat([first, second, first * second], dim=-1))
        return _best_label(labels + scores_K[:, None, None] + scores_K[None, :, None])


def _best_label(scores: Float[Tensor, "*shape labels"]) -> Integer[Tensor, "*shape"]:
    best = scores.max(dim=-1)
    return torch.where(best.values > NO_LABEL_SCORE, best.indices, -1)
