"""A branch: a sequence with its own KV cache, extended token by token.

Plain decoding has one branch. A contrastive method has a second branch with a different prompt (another image, fewer
image tokens, or none): it gets the same answer tokens, and the method subtracts its logits. Rows of a branch can be
reordered and repeated (beams). R rows, L cached positions, V tokens.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ...alignment.aligned_student import AlignedStudent
from ...compat.transformers import PromptCache, cache_argument
from .cost import Cost
from .finite_scores import FiniteWatch
from .prompt import Prompt

SUPPRESSED = -1e9
"""Logit of a token that must never be generated; finite, so that differences between branches are finite."""


@runtime_checkable
class Hook(Protocol):
    """Acts in the forward passes of one branch; see core/hooks.py."""

    def attached(self, branch: "Branch") -> AbstractContextManager[None]:
        """Attach the hook for one forward pass of `branch`, which runs inside the block."""
        ...


class Branch:
    """Next-token logits for a prompt and the tokens generated so far."""

    def __init__(
        self,
        model: AlignedStudent,
        prompt: Prompt,
        *,
        cost: Cost,
        watch: FiniteWatch,
        suppressed: Int[Tensor, " suppressed"] | None = None,
        hooks: Sequence["Hook"] = (),
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.hooks = tuple(hooks)
        self.attention_mask = prompt.attention_mask
        """[R, L], 0 for cached positions that are padding."""
        self.owner = torch.arange(len(prompt.input_ids), device=prompt.input_ids.device)
        """[R], sample of each row."""
        self.watch = watch
        self._cost = cost
        self._suppressed = suppressed
        self._padded = False
        self._windowed = getattr(model.config.text_config, "sliding_window", None) is not None
        self._cache = PromptCache()
        self._logits: Tensor | None = None

    @property
    def logits(self) -> Float[Tensor, "rows vocab"]:
        """Logits of the next token in float32; runs the prefill if it has not run yet."""
        if self._logits is None:
            positions = (self.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            # Checked once for all steps, because transformers waits for the device to check each mask that it gets.
            self._padded = not bool(self.attention_mask.all())
            mask = self.attention_mask if self._padded else None
            self._forward(self.prompt.input_ids, mask, positions, self.prompt)
            assert self._logits is not None
        return self._logits

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append one token to each row and return the next-token logits."""
        if self._logits is None:
            _ = self.logits  # run the prefill first
        positions = self.attention_mask.sum(dim=1, keepdim=True)
        self.attention_mask = functional.pad(self.attention_mask, (0, 1), value=1)
        mask = self.attention_mask if self._padded else None
        if mask is not None and not self._windowed:  # a four-dimensional mask would replace the sliding window
            mask = mask.bool()[:, None, None]
        self._forward(tokens[:, None], mask, positions, None)
        return self.logits

    def select(self, rows: Int[Tensor, " selected"]) -> None:
        """Keep these rows, in this order; rows can be repeated."""
        self._logits = self.logits[rows]
        self._cache.batch_select_indices(rows)
        self.attention_mask, self.owner = self.attention_mask[rows], self.owner[rows]

    def _forward(self, input_ids: Tensor, mask: Tensor | None, position_ids: Tensor, prompt: Prompt | None) -> None:
        """Run the language model on new positions; `prompt` contains their images."""
        with ExitStack() as stack:
            for hook in self.hooks:
                stack.enter_context(hook.attached(self))
            logits = self.model.next_logits(
                input_ids,
                self.prompt.images,
                None if prompt is None else prompt.image_tokens,
                attention_mask=mask,
                position_ids=position_ids,
                use_cache=True,
                **cache_argument(self._cache),
            )
        self._cost.charge(self.owner)
        self._logits = logits.float()
        self.watch.see_logits(self._logits, self.owner)
        if self._suppressed is not None:
            self._logits.index_fill_(1, self._suppressed, SUPPRESSED)
