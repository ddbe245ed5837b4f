"""A loaded teacher: one forward pass computes patch features E_v and CLS attention E_a on the native grid."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ...choices import Dtype
from .registry import TeacherSpec

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """A teacher's output for a batch: float32, on its native grid, row-major from the top left."""

    patches: Float[Tensor, "batch patch width"]
    """E_v: the patch tokens that `TeacherSpec.features` defines."""
    attention: Float[Tensor, "batch patch"]
    """E_a: the CLS row of the last block's softmax, averaged over heads, without the CLS column, not normalized."""


class LastBlockTap:
    """Records the input and output of one transformer block during a forward pass."""

    def __init__(self, block: nn.Module) -> None:
        self.entered: Tensor | None = None
        self.left: Tensor | None = None
        self._handle = block.register_forward_hook(self._record, with_kwargs=True)

    def _record(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        self.entered = args[0] if args else next(iter(kwargs.values()))
        self.left = output

    def __enter__(self) -> "LastBlockTap":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """An image tower with weights, on a device, and the source of the weights."""

    spec: TeacherSpec
    tower: nn.Module
    device: torch.device
    dtype: Dtype
    """Precision of matrix products; the residual stream, norms and attention softmax are always float32."""
    weights_sha256: str

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "batch 3 side side"]) -> TeacherOutput:
        """Run the tower on normalized pixels; both outputs are float32 on the teacher's device."""
        side = self.spec.image_size
        if tuple(pixels.shape[1:]) != (3, side, side):
            raise ValueError(f"{self.spec.name} expects [B, 3, {side}, {side}] pixels, not {list(pixels.shape)}")
        with self._precision(), LastBlockTap(self._last_block()) as tap:
            final = self._run(pixels.to(self.device, torch.float32))
            assert tap.entered is not None
            assert tap.left is not None
            attention = self._attention(tap.entered)
        tokens = tap.left if final is None else final
        return TeacherOutput(patches=tokens[:, 1:].float(), attention=attention[:, 1:].contiguous())

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.dtype])

    def _last_block(self) -> nn.Module:
        tower: Any = self.tower
        blocks = tower.trunk.blocks if self.spec.timm_name else tower.transformer.resblocks
        block: nn.Module = blocks[-1]
        return block

    def _run(self, pixels: Tensor) -> Tensor | None:
        """Run the tower; returns the tokens after the final norm if they are the features."""
        tower: Any = self.tower
        if self.spec.features == "final-norm":
            tokens: Tensor = tower.trunk.forward_features(pixels)
            return tokens
        tower(pixels)
        return None

    def _attention(self, entered: Tensor) -> Tensor:
        """CLS attention of the last block, computed from its input tokens: [B, M + 1], float32."""
        block: Any = self._last_block()
        if self.spec.timm_name:
            return cls_attention(block.norm1(entered), block.attn.qkv.weight, block.attn.qkv.bias, self.spec.heads)
        return cls_attention(block.ln_1(entered), block.attn.in_proj_weight, block.attn.in_proj_bias, self.spec.heads)


def cls_attention(
    normed_BTC: Float[Tensor, "batch token width"],
    qkv_weight: Float[Tensor, "three_width width"],
    qkv_bias: Float[Tensor, "three_width"] | None,
    heads: int,
) -> Float[Tensor, "batch token"]:
    """Attention of token 0 to all tokens, averaged over heads; the other rows of the map are not computed.

    `qkv_weight` stacks the projections of queries, keys and values (the order of torch and timm). Memory use is
    B x heads x T, not B x heads x T x T. The scaled products and the softmax are computed in float32.
    """
    batch, tokens, width = normed_BTC.shape
    head_width = width // heads
    bias_q, bias_k = (None, None) if qkv_bias is None else (qkv_bias[:width], qkv_bias[width : 2 * width])
    query_BC = functional.linear(normed_BTC[:, 0], qkv_weight[:width], bias_q)
    key_BTC = functional.linear(normed_BTC, qkv_weight[width : 2 * width], bias_k)
    with torch.autocast(normed_BTC.device.type, enabled=False):
        query_BHD = query_BC.float().view(batch, heads, head_width) * head_width**-0.5
        key_BTHD = key_BTC.float().view(batch, tokens, heads, head_width)
        scores_BHT = torch.einsum("bhd,bthd->bht", query_BHD, key_BTHD)
        return scores_BHT.softmax(dim=-1).mean(dim=1)
