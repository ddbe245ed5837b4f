"""Hooks into one branch's forward passes: attention rows, score biases, head outputs, hidden states.

A hook is attached only while its branch runs, so a bias in the positive branch does not affect the negative branch. All
work with sdpa. R rows, H heads, K cached positions, L queries, d width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import LlavaForConditionalGeneration

from ...alignment.attention_taps import SeenAttention, tapped
from .branch import Branch


def decoder_layers(branch: Branch) -> nn.ModuleList:
    """The language model's layers."""
    layers: nn.ModuleList = branch.model.stock.model.language_model.layers
    return layers


class AttentionRows:
    """Keeps the result of `keep` for the attention of some layers in every forward pass; by default the last row."""

    def __init__(self, layers: Sequence[int], keep: Callable[[SeenAttention], Tensor] = SeenAttention.weights) -> None:
        self.layers = tuple(layers)
        self.rows: dict[int, Float[Tensor, "rows heads keys"]] = {}
        """Results by layer, from the latest forward pass."""
        self._keep = keep

    @contextmanager
    def attached(self, branch: Branch) -> Iterator[None]:
        attentions = [decoder_layers(branch)[layer].self_attn for layer in self.layers]
        with tapped(attentions, [partial(self._see, layer) for layer in self.layers]):
            yield

    def _see(self, layer: int, seen: SeenAttention) -> None:
        self.rows[layer] = self._keep(seen)


class ScoreBias:
    """Adds a bias to the attention scores of some layers, before the softmax.

    `bias` gets the attention call and a mask of cached image positions [R, K], and returns [R or 1, H or 1, 1, K] (for
    the last query only, which is cheap at prefill) or [.., .., L, K]. Masked positions remain masked.
    """

    def __init__(
        self, layers: Sequence[int], bias: Callable[[SeenAttention, Bool[Tensor, "rows keys"]], Tensor]
    ) -> None:
        self.layers = tuple(layers)
        self._bias = bias

    @contextmanager
    def attached(self, branch: Branch) -> Iterator[None]:
        attentions = [decoder_layers(branch)[layer].self_attn for layer in self.layers]
        is_image = image_positions(branch)

        def tap(seen: SeenAttention) -> Tensor:
            return self._bias(seen, is_image)

        with tapped(attentions, [tap] * len(attentions)):
            yield


def image_positions(branch: Branch) -> Bool[Tensor, "rows keys"]:
    """Which cached positions of each row are image tokens."""
    images = branch.prompt.images
    in_prompt = torch.zeros_like(branch.prompt.attention_mask, dtype=torch.bool)
    in_prompt[images.sample[:, None], images.positions] = True
    is_image = torch.zeros_like(branch.attention_mask, dtype=torch.bool)
    is_image[:, : in_prompt.shape[1]] = in_prompt[branch.owner]
    return is_image


class HeadOutputs:
    """Changes the outputs of the heads of some layers, before the output projection.

    `change` gets the layer and the outputs of its heads [R, L, H, size], and returns the new outputs.
    """

    def __init__(
        self,
        layers: Sequence[int],
        change: Callable[[int, Float[Tensor, "rows queries heads size"]], Float[Tensor, "rows queries heads size"]],
    ) -> None:
        self.layers = tuple(layers)
        self._change = change

    @contextmanager
    def attached(self, branch: Branch) -> Iterator[None]:
        handles: list[RemovableHandle] = []
        for layer in self.layers:
            attention: Any = decoder_layers(branch)[layer].self_attn
            change = partial(self._change_input, layer, attention.head_dim)
            handles.append(attention.o_proj.register_forward_pre_hook(change))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _change_input(self, layer: int, size: int, module: object, args: tuple[Tensor]) -> tuple[Tensor]:
        return (self._change(layer, args[0].unflatten(-1, (-1, size))).flatten(-2),)


class HiddenStates:
    """Keeps the last position's hidden state at some depths in every forward pass.

    Depth 0 is the embedding and depth i the output of the i-th layer; the last one is before the final norm.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        self.depths = tuple(depths)
        self.states: dict[int, Float[Tensor, "rows width"]] = {}
        """Hidden states by depth, from the latest forward pass."""

    @contextmanager
    def attached(self, branch: Branch) -> Iterator[None]:
        layers = decoder_layers(branch)
        handles: list[RemovableHandle] = []
        for depth in self.depths:
            if depth == 0:
                embed = branch.model.stock.model.language_model.layers[0]
                handles.append(embed.register_forward_pre_hook(self._see_input, with_kwargs=True))
            else:
                handles.append(layers[depth - 1].register_forward_hook(partial(self._see_output, depth)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _see_input(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.states[0] = (args[0] if args else kwargs["hidden_states"])[:, -1]

    def _see_output(self, depth: int, module: object, args: object, output: Tensor) -> None:
        self.states[depth] = output[:, -1]


def early_logits(
    llava: LlavaForConditionalGeneration, state: Float[Tensor, "rows width"], *, normed: bool = True
) -> Float[Tensor, "rows vocab"]:
    """Compute float32 logits of a hidden state at any depth; `normed` applies the final norm first."""
    norm = llava.model.language_model.norm
    logits: Tensor = llava.lm_head(norm(state) if normed else state)
    return logits.float()
