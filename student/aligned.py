"""A student with its alignment parts: rotation at the input of layer l, attention rows of layer l, and the losses.

The Llava inside stays transformers' own; a hook and an attention function for each aligned layer are all that is
added. The rotation is applied whenever images enter the model: in training and at prefill, never in later decoding
steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from ..errors import SettingsError
from ..teacher_cache.store.codecs import cosine_matrix
from .aligned_layer import AlignedLayer, of_no_weight
from .capture import RowRequest
from .compat.transformers import brings_images, checkpoint_decoder, encoded_images
from .layout import BatchLayout
from .losses import AttentionNormalisation, attention_alignment_loss, teacher_cosines, visual_alignment_loss
from .precision import as_stored, computing_in
from .rotation import Rotation, RotationMode
from .spans import ImageSpans, find_images

ROTATION_PREFIX = "aligned."
"""What the names of W's parameters begin with."""

Checkpointing = Literal["non_reentrant", "reentrant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOutput:
    """What one aligned layer showed in a batch with images. K images, N patches."""

    layer: int
    tokens: Float[Tensor, "images patches width"]
    """Image tokens at the layer's input, rotated as the losses see them."""
    attention: Float[Tensor, "images patches"]
    """M_a, before normalisation."""


@dataclass(frozen=True, kw_only=True)
class AlignedOutput:
    """Unreduced losses, so that any batch can be averaged correctly. B samples, K images, N patches.

    Without slots: DeepSpeed looks for tensors among `vars` of what a model returns.
    """

    loss_lm: Float[Tensor, " batch"]
    """Negative log likelihood of each sample's answer, summed over its tokens (Eq. 6), in nats."""
    answer_tokens: Int[Tensor, " batch"]
    loss_vis: Float[Tensor, " images"] | None
    """L_vis of each image (Eq. 4), mean over the aligned layers; None where neither E_v nor S was given."""
    loss_att: Float[Tensor, " images"] | None
    """L_att of each image (Eq. 5), mean over the aligned layers; None where no E_a was given."""
    layers: tuple[LayerOutput, ...]
    """One for each aligned layer; empty in a batch without images."""


class AlignedStudent(nn.Module):
    """A Llava with alignment at the inputs of decoder layers `layers` (zero-based)."""

    def __init__(
        self,
        llava: LlavaForConditionalGeneration,
        *,
        layers: Sequence[int],
        rotation: RotationMode,
        patches: int,
        attention_normalisation: AttentionNormalisation = "sum",
        known_rows: int | None = None,
    ) -> None:
        """`known_rows`: rows of the output table as published (None: all); the answer loss leaves out a later one."""
        super().__init__()
        decoder = llava.model.language_model.layers
        for layer in layers:
            if not 0 <= layer < len(decoder):
                raise SettingsError(
                    f"alignment.layer is {layer}, but the language model has layers 0 to {len(decoder) - 1}"
                )
        self.llava = llava
        self.config = llava.config
        self.patches = patches
        self.attention_normalisation = attention_normalisation
        self.image_token_id: int = llava.config.image_token_id
        self.known_rows: int = known_rows or llava.config.text_config.vocab_size
        width = llava.config.text_config.hidden_size
        self.points = [AlignedLayer(layer, decoder[layer], width, rotation) for layer in layers]
        self.aligned = nn.ModuleList(self.points)
        # In a tuple, so that it is not registered a second time.
        self._tower = (llava.model.vision_tower,)
        self._images: ImageSpans | None = None
        self._found: ImageSpans | None = None
        self._is_text_only = False
        llava.model.register_forward_pre_hook(self._note_images, with_kwargs=True)
        llava.model.language_model.register_forward_pre_hook(self._add_blank_image, with_kwargs=True)
        for aligned in self.points:
            hook = partial(self._rotate_images, aligned)
            decoder[aligned.layer].register_forward_pre_hook(hook, with_kwargs=True)

    @property
    def rotations(self) -> dict[int, Rotation]:
        """W of each aligned layer; empty where there is none."""
        return {aligned.layer: aligned.rotation for aligned in self.points if aligned.rotation is not None}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def max_positions(self) -> int:
        """Longest sequence, in tokens, that the language model was built for."""
        text = self.config.text_config
        positions: int = text.max_position_embeddings
        rope = getattr(text, "rope_parameters", None) or {}
        if rope.get("rope_type") in ("linear", "dynamic"):  # config.json then has the positions before scaling
            return int(positions * rope.get("factor", 1.0))
        if rope.get("rope_type") == "yarn":
            return max(positions, int(rope.get("original_max_position_embeddings", 0) * rope.get("factor", 1.0)))
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
        autocast: torch.dtype | None = None,
        layout: BatchLayout | None = None,
    ) -> AlignedOutput:
        """Losses of a batch; `labels` are IGNORED_LABEL outside the answers, images in reading order.

        The teacher's cosines S are taken from E_v where they are not given themselves. A batch without images runs the
        same modules as any other, on a blank image of no weight. `autocast` is the half precision that the model
        computes in (None: that of its weights); the losses are float32. Without `layout`, which `AlignmentCollator`
        gives, it is worked out here, for which the host waits for a GPU.
        """
        if layout is None:
            layout = BatchLayout.of(
                input_ids, attention_mask, labels, image_token_id=self.image_token_id, patches=self.patches
            )
        self._is_text_only = pixel_values is None
        if pixel_values is not None:
            assert layout.questions is not None
            self.expect_images(layout.images)
            for aligned in self.points:
                aligned.capture.request(RowRequest(images=layout.images, rows=layout.questions))
        mask = attention_mask if layout.padded_left else None
        with computing_in(autocast, input_ids.device):
            loss_lm = self._answer_loss(input_ids, mask, pixel_values, layout)
        self._is_text_only = False
        layers = () if pixel_values is None else tuple(map(_taken, self.points))
        with as_stored(input_ids.device):
            loss_vis, loss_att = self._loss_vis(layers, teacher_cosines(E_v, S)), self._loss_att(layers, E_a)
        return AlignedOutput(
            loss_lm=loss_lm,
            answer_tokens=layout.labels.of_sample,
            loss_vis=loss_vis,
            loss_att=loss_att,
            layers=layers,
        )

    def train(self, mode: bool = True) -> "AlignedStudent":
        """Training mode, in which a vision tower without trained parameters still stays in evaluation mode."""
        super().train(mode)
        tower = self._tower[0]
        if not any(parameter.requires_grad for parameter in tower.parameters()):
            tower.eval()
        return self

    @property
    def stock(self) -> LlavaForConditionalGeneration:
        """transformers' own model, where peft's is around it; LoRA and W act in it all the same."""
        llava = self.llava
        return llava.get_base_model() if isinstance(llava, PeftModel) else llava

    def image_tokens(self, pixel_values: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images patches width"]:
        """What vision tower and projector make of images: the language model's inputs at their places."""
        return torch.stack(tuple(self.stock.get_image_features(pixel_values, return_dict=True).pooler_output))

    def expect_images(self, images: ImageSpans) -> None:
        """Where the next forward pass has its images, so that they need not be searched for on its device."""
        self._found = images

    def next_logits(
        self,
        input_ids: Int[Tensor, "batch length"],
        images: ImageSpans,
        image_tokens: Float[Tensor, "images tokens width"] | None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch vocab"]:
        """Next-token logits behind prompts whose image tokens are given, any number an image; W acts on them."""
        encoded = {}
        if image_tokens is not None:
            self.expect_images(images)
            encoded = encoded_images(image_tokens)
        logits: Tensor = self.stock(input_ids=input_ids, logits_to_keep=1, **encoded, **kwargs).logits
        for aligned in self.points:
            aligned.take_tokens()
        return logits[:, -1]

    def checkpoint_gradients(self, kind: Checkpointing) -> None:
        """Compute activations again in the backward pass instead of keeping them; aligned layers keep theirs.

        What the losses take out of a layer must be computed once, with gradients: a checkpointed layer runs without
        them at first (`reentrant`) and a second time later.
        """
        checkpoint_decoder(
            self.llava.get_decoder(),
            reentrant=kind == "reentrant",
            except_layers=[aligned.layer for aligned in self.points],
        )

    def _loss_vis(
        self, layers: Sequence[LayerOutput], teacher: Float[Tensor, "images patches patches"] | None
    ) -> Float[Tensor, " images"] | None:
        if teacher is None or not layers:
            return None
        return torch.stack([visual_alignment_loss(cosine_matrix(layer.tokens), teacher) for layer in layers]).mean(
            dim=0
        )

    def _loss_att(
        self, layers: Sequence[LayerOutput], E_a: Float[Tensor, "images patches"] | None
    ) -> Float[Tensor, " images"] | None:
        if E_a is None or not layers:
            return None
        return torch.stack(
            [attention_alignment_loss(layer.attention, E_a, self.attention_normalisation) for layer in layers]
        ).mean(dim=0)

    def _answer_loss(
        self, input_ids: Tensor, attention_mask: Tensor | None, pixel_values: Tensor | None, layout: BatchLayout
    ) -> Float[Tensor, " batch"]:
        """Summed answer NLL; logits are computed for the labels alone, one row each."""
        labels = layout.labels
        hidden_BLD = self.stock.model(
            input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, use_cache=False
        ).last_hidden_state
        logits_TV = self.stock.lm_head(hidden_BLD[labels.sample, labels.position])[..., : self.known_rows]
        nll_T = functional.cross_entropy(logits_TV.float(), labels.token, reduction="none")
        # A row for each sample, since adding up by index has no order of its own on a GPU.
        nll_BA = nll_T.new_zeros(len(input_ids), labels.longest)
        return nll_BA.index_put((labels.sample, labels.number), nll_T).sum(dim=1)

    def _note_images(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the multimodal model runs: where its images are, or that this call brings none."""
        found, self._found = self._found, None
        if brings_images(kwargs):
            self._images = found or find_images(kwargs["input_ids"], self.image_token_id, self.patches)
        else:
            self._images = None

    def _add_blank_image(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the language model runs on a batch without images: pass a blank one through tower and projector.

        Processes that share parameters or gradients must run the same modules in the same order, whatever their share
        of a step is: ZeRO-3 and FSDP2 put parameters together module by module, and ZeRO-2 and 3 reduce gradients in
        the order in which they come, so another order would mix up the parameters of two processes.
        """
        if not self._is_text_only:
            return None
        side = self.config.vision_config.image_size
        blank = self.image_tokens(torch.zeros(1, 3, side, side, device=kwargs["inputs_embeds"].device))
        return args, {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] + of_no_weight(blank)}

    def _rotate_images(
        self, aligned: AlignedLayer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before an aligned layer runs."""
        if self._is_text_only:
            return aligned.rotate_nothing(args, kwargs)
        if self._images is None or self._images.count == 0:
            return None
        return aligned.rotate(self._images, args, kwargs)


def _taken(aligned: AlignedLayer) -> LayerOutput:
    tokens = aligned.take_tokens()
    assert tokens is not None
    return LayerOutput(layer=aligned.layer, tokens=tokens, attention=aligned.capture.take())
