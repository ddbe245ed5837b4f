"""A branch: one stream of text with its own key-value cache, fed token by token.

Plain decoding has one branch. A contrastive method has a second one whose prompt differs (another image, fewer image
tokens, none): it is fed the same answer tokens, and its logits are what the method subtracts. Rows of a branch may be
reordered and repeated (beams). R rows, L cached positions, V tokens.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from ...alignment.aligned_student import AlignedStudent
from ...compat.transformers import cache_argument
from .cost import Cost
from .finite_scores import FiniteWatch
from .prompt import Prompt

SUPPRESSED = -1e9
"""Logit of a token that the model must never say; finite, so that differences of branches stay numbers."""


@runtime_checkable
class Hook(Protocol):
    """Something that acts in one branch's forward passes (core/hooks.py has some)."""

    def attached(self, branch: "Branch") -> AbstractContextManager[None]:
        """In place while the block runs, which is one forward pass of `branch`."""
        ...


class Branch:
    """Next-token logits of a prompt and whatever was said since."""

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
        """[R, L], 0 where a cached position is padding."""
        self.owner = torch.arange(len(prompt.input_ids), device=prompt.input_ids.device)
        """[R], the sample that each row answers."""
        self.watch = watch
        self._cost = cost
        self._suppressed = suppressed
        self._padded = False
        self._windowed = getattr(model.config.text_config, "sliding_window", None) is not None
        self._cache = DynamicCache()
        self._logits: Tensor | None = None

    @property
    def logits(self) -> Float[Tensor, "rows vocab"]:
        """Of the next token, float32; reads the prompt if that has not happened yet."""
        if self._logits is None:
            positions = (self.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            # Once for all steps: for each mask that it is given, transformers waits to know whether it hides anything.
            self._padded = not bool(self.attention_mask.all())
            mask = self.attention_mask if self._padded else None
            self._forward(self.prompt.input_ids, mask, positions, self.prompt)
            assert self._logits is not None
        return self._logits

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append one token to each row; its next-token logits."""
        if self._logits is None:
            _ = self.logits  # the prompt comes first
        positions = self.attention_mask.sum(dim=1, keepdim=True)
        self.attention_mask = functional.pad(self.attention_mask, (0, 1), value=1)
        mask = self.attention_mask if self._padded else None
        if mask is not None and not self._windowed:  # a mask of four axes takes the place of a sliding window
            mask = mask.bool()[:, None, None]
        self._forward(tokens[:, None], mask, positions, None)
        return self.logits

    def select(self, rows: Int[Tensor, " selected"]) -> None:
        """Go on with these rows, in this order; one may be there several times."""
        self._logits = self.logits[rows]
        self._cache.batch_select_indices(rows)
        self.attention_mask, self.owner = self.attention_mask[rows], self.owner[rows]

    def _forward(self, input_ids: Tensor, mask: Tensor | None, position_ids: Tensor, prompt: Prompt | None) -> None:
        """Run the language model over new positions; `prompt` brings their images."""
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
