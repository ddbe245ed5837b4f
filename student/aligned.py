"""A student with its alignment parts: rotation at the input of layer l, attention rows of layer l, and the losses.

The Llava inside stays transformers' own; two hooks and one layer's attention function are all that is added. The
rotation is applied whenever images enter the model: in training and at prefill, never in later decoding steps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from ..errors import SettingsError
from ..teacher_cache.store.codecs import cosine_matrix
from .capture import AttentionCapture, RowRequest
from .losses import AttentionNormalisation, attention_alignment_loss, teacher_cosines, visual_alignment_loss
from .rotation import Rotation
from .spans import IGNORED_LABEL, ImageSpans, find_images, question_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignedOutput:
    """Unreduced losses, so that any batch can be averaged correctly. B samples, K images, N patches."""

    loss_lm: Float[Tensor, " batch"]
    """Negative log likelihood of each sample's answer, summed over its tokens (Eq. 6), in nats."""
    answer_tokens: Int[Tensor, " batch"]
    loss_vis: Float[Tensor, " images"] | None
    """L_vis of each image (Eq. 4); None where neither E_v nor S was given."""
    loss_att: Float[Tensor, " images"] | None
    """L_att of each image (Eq. 5); None where no E_a was given."""
    tokens: Float[Tensor, "images patches width"] | None
    """Rotated image tokens at the input of layer l; None in a batch without images."""
    attention: Float[Tensor, "images patches"] | None
    """M_a, before normalisation; None in a batch without images."""


class AlignedStudent(nn.Module):
    """A Llava with an optional rotation W at the input of decoder layer `layer` (zero-based)."""

    def __init__(
        self,
        llava: LlavaForConditionalGeneration,
        *,
        layer: int,
        rotate: bool,
        patches: int,
        attention_normalisation: AttentionNormalisation = "sum",
    ) -> None:
        super().__init__()
        layers = llava.model.language_model.layers
        if not 0 <= layer < len(layers):
            raise SettingsError(f"alignment.layer is {layer}, but the language model has layers 0 to {len(layers) - 1}")
        self.llava = llava
        self.config = llava.config
        self.layer = layer
        self.patches = patches
        self.attention_normalisation = attention_normalisation
        self.image_token_id: int = llava.config.image_token_id
        self.rotation = Rotation(llava.config.text_config.hidden_size) if rotate else None
        self.capture = AttentionCapture(layers[layer].self_attn)
        self._images: ImageSpans | None = None
        self._tokens: Tensor | None = None
        llava.model.register_forward_pre_hook(self._note_images, with_kwargs=True)
        layers[layer].register_forward_pre_hook(self._rotate_images, with_kwargs=True)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def max_positions(self) -> int:
        """Longest sequence, in tokens, that the language model was built for."""
        positions: int = self.config.text_config.max_position_embeddings
        return positions

    def forward(
        self,
        input_ids: Int[Tensor, "batch length"],
        attention_mask: Int[Tensor, "batch length"],
        labels: Int[Tensor, "batch length"],
        pixel_values: Float[Tensor, "images 3 size size"] | None = None,
        E_v: Float[Tensor, "images patches channels"] | None = None,
        S: Float[Tensor, "images patches patches"] | None = None,
        E_a: Float[Tensor, "images patches"] | None = None,
    ) -> AlignedOutput:
        """Losses of a batch; `labels` are IGNORED_LABEL outside the answers, images in reading order.

        The teacher's cosines S are taken from E_v where they are not given themselves.
        """
        if pixel_values is not None:
            images = find_images(input_ids, self.image_token_id, self.patches)
            rows = question_rows(input_ids, attention_mask, labels, images, self.image_token_id)
            self.capture.request(RowRequest(images=images, rows=rows))
        loss_lm, answer_tokens = self._answer_loss(input_ids, attention_mask, labels, pixel_values)
        tokens = self._take_tokens()
        attention = None if pixel_values is None else self.capture.take()
        teacher = teacher_cosines(E_v, S)
        return AlignedOutput(
            loss_lm=loss_lm,
            answer_tokens=answer_tokens,
            loss_vis=None
            if teacher is None or tokens is None
            else visual_alignment_loss(cosine_matrix(tokens), teacher),
            loss_att=None
            if E_a is None or attention is None
            else attention_alignment_loss(attention, E_a, self.attention_normalisation),
            tokens=tokens,
            attention=attention,
        )

    def generate(self, **kwargs: Any) -> Int[Tensor, "batch length"]:
        """transformers' `generate` with the rotation in place."""
        generated: Tensor = self.llava.generate(**kwargs)
        self._tokens = None
        return generated

    def _answer_loss(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, pixel_values: Tensor | None
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Summed answer NLL; logits are computed only where some sample of the batch has a label."""
        targets_BL = labels[:, 1:]
        keep = (targets_BL != IGNORED_LABEL).any(dim=0).nonzero().squeeze(1)
        logits_BTV = self.llava(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        targets_BT = targets_BL[:, keep]
        nll_BT = functional.cross_entropy(
            logits_BTV.float().transpose(1, 2), targets_BT, ignore_index=IGNORED_LABEL, reduction="none"
        )
        return nll_BT.sum(dim=1), (targets_BT != IGNORED_LABEL).sum(dim=1)

    def _take_tokens(self) -> Tensor | None:
        tokens, self._tokens = self._tokens, None
        return tokens

    def _note_images(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the multimodal model runs: where its images are, or that this call brings none."""
        encoded = (kwargs.get("mm_encoder_outputs") or {}).get("image")
        if kwargs.get("pixel_values") is None and encoded is None:
            self._images = None
        else:
            self._images = find_images(kwargs["input_ids"], self.image_token_id, self.patches)

    def _rotate_images(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before layer l runs: rotate the image tokens among its inputs and keep them for the losses."""
        if self._images is None or self._images.count == 0:
            return None
        hidden_BLD = args[0] if args else kwargs["hidden_states"]
        where = (self._images.sample[:, None], self._images.positions)
        tokens_KND = hidden_BLD[where]
        if self.rotation is not None:
            tokens_KND = self.rotation(tokens_KND)
            hidden_BLD = hidden_BLD.index_put(where, tokens_KND)
        self._tokens = tokens_KND
        if args:
            return (hidden_BLD, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden_BLD}
