"""Continuations of each prompt as a tree in one KV cache, in which beams share their common prefix.

A `Branch` has one row for each beam, but a tree has one row for each sample; tokens can be added to any node, several
at once, and attend only to their ancestors. Nothing is copied when beams are reordered, and earlier nodes can be
extended again later, as needed for rollbacks. B samples, n nodes, T ancestors, S cache positions, H heads, d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ...alignment.attention_taps import SeenAttention
from ...compat.transformers import cache_argument, keep_in_cache
from ...transfer import to_device
from .batch_run import Run
from .branch import SUPPRESSED, Branch
from .hooks import AttentionRows, HiddenStates, decoder_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Grown:
    """New nodes of a tree."""

    first: int
    """Cache position of the first node; the others follow."""
    states: Float[Tensor, "batch nodes width"]
    """Hidden states, from which `Tree.next_logits` computes next-token logits."""
    rows: Float[Tensor, "batch nodes places"]
    """Their attention weights in the last layer, maximum over heads."""


class Tree(Branch):
    """Runs the prefill of a run's prompts when it is created, and is then extended."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.student.model, run.prompt, cost=run.cost, watch=run.watch, suppressed=run.suppressed)
        last = len(decoder_layers(self))
        at_end = HiddenStates([last])
        self.hooks = (at_end,)
        _ = self.logits  # runs the prefill
        self.hooks = ()
        self.root: Float[Tensor, "batch width"] = self.model.stock.model.language_model.norm(at_end.states[last])
        """Hidden state of each prompt's last token."""
        self._rows = AttentionRows([last - 1], largest_over_heads)

    def grow(self, tokens: Int[Tensor, "batch nodes"], paths: Sequence[Int[Tensor, "nodes _"]]) -> Grown:
        """Add nodes; `paths` are the cache positions of each sample's ancestors, without the prompt."""
        batch, nodes = tokens.shape
        first = self._cache.get_seq_length()
        prompt_BS = functional.pad(self.attention_mask.bool(), (0, first - self.attention_mask.shape[1]))
        visible_BnS = prompt_BS[:, None].repeat(1, nodes, 1)
        for visible_nS, path in zip(visible_BnS, paths, strict=True):
            visible_nS.scatter_(1, to_device(path, tokens.device), True)
        depth_B = to_device(torch.tensor([path.shape[1] for path in paths]), tokens.device)
        itself = torch.eye(nodes, dtype=torch.bool, device=tokens.device).expand(batch, -1, -1)
        with self._rows.attached(self):
            states = self.model.stock.model(
                input_ids=tokens,
                attention_mask=torch.cat([visible_BnS, itself], dim=2)[:, None],
                position_ids=(self.attention_mask.sum(dim=1) + depth_B)[:, None].expand(-1, nodes),
                use_cache=True,
                **cache_argument(self._cache),
            ).last_hidden_state
        self._cost.charge(self.owner.repeat_interleave(nodes))
        return Grown(first=first, states=states, rows=next(iter(self._rows.rows.values())))

    def keep(self, grown: Grown, nodes: Int[Tensor, "batch kept"]) -> None:
        """Keep only these of the nodes added last, in this order, starting at cache position `grown.first`."""
        keep_in_cache(self._cache, lambda cached: _keep(cached, grown.first, nodes))

    def next_logits(self, states: Float[Tensor, "*nodes width"]) -> Float[Tensor, "*nodes vocab"]:
        """Logits of the token after each node, in float32."""
        logits: Tensor = self.model.stock.lm_head(states).float()
        if states.dim() == 3:  # all samples; states of a single sample were recorded before
            self.watch.see_logits(logits.flatten(0, 1), self.owner.repeat_interleave(states.shape[1]))
        if self._suppressed is not None:
            logits.index_fill_(-1, self._suppressed, SUPPRESSED)
        return logits


def largest_over_heads(seen: SeenAttention) -> Float[Tensor, "batch queries keys"]:
    """Maximum attention weight over heads for every query and key of a call."""
    assert seen.mask is not None
    assert seen.mask.dtype == torch.bool
    grouped_BGRQd = seen.query.unflatten(1, (seen.key.shape[1], -1))
    scores_BGRQK = (grouped_BGRQd @ seen.key[:, :, None].transpose(3, 4)).float() * seen.scaling
    weights: Tensor = scores_BGRQK.masked_fill(~seen.mask[:, :, None], -torch.inf).softmax(dim=-1)
    return weights.amax(dim=(1, 2))


def _keep(cached: Tensor, first: int, nodes: Int[Tensor, "batch kept"]) -> Tensor:
    """Remove the positions of `cached` [B, G, S, size] from `first` on that are not in `nodes`."""
    index = (first + nodes)[:, None, :, None].expand(-1, cached.shape[1], -1, cached.shape[3])
    return torch.cat([cached[:, :, :first], cached.gather(2, index)], dim=2)
