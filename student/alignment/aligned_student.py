"""A student with its alignment parts: rotation at the input of layer l, attention rows of layer l, and the losses.

The Llava inside is transformers' own; only hooks and an attention function for each aligned layer are added.
The rotation is applied whenever images enter the model: in training and at prefill, never in later decoding steps.

The inputs and outputs of the hooks in a forward pass are in one `Observation`: that of the `observe` block around the
pass, or one that ends with the pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import LlavaForConditionalGeneration

from ...choices import AttentionNormalization, AttentionRows, Checkpointing, RotationMode
from ...errors import SettingsError
from ...teacher_cache.geometry.cosines import cosine_matrix
from ..compat.transformers import (
    brings_images,
    checkpoint_decoder,
    encoded_images,
    is_recomputed,
    prompt_cache,
)
from ..inputs.batch_layout import BatchLayout
from ..inputs.spans import ImageSpans, TextRows, find_images
from ..precision import as_stored, computing_in
from .aligned_layer import AlignedLayer, Arguments, zero_with_gradient
from .attention_taps import tapped
from .losses import (
    attention_alignment_loss,
    has_region,
    region_alignment_loss,
    teacher_cosines,
    visual_alignment_loss,
)
from .observation import Observation
from .query_experts import QueryExperts, add_experts, query_width
from .rotation import Rotation
from .teacher_projection import TeacherProjection

ROTATION_PREFIX = "aligned."
"""Prefix of the names of W's parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOutput:
    """Image tokens and attention of one aligned layer in a batch with images. K images, N patches."""

    layer: int
    tokens: Float[Tensor, "images patches width"]
    """Image tokens at the layer's input, after W."""
    attention: Float[Tensor, "images patches"]
    """M_a, before normalization."""


@dataclass(frozen=True, kw_only=True)
class AlignedOutput:
    """Unreduced losses, so that batches can be averaged correctly. B samples, K images, N patches.

    Without slots, because DeepSpeed looks for tensors in `vars` of a model's output.
    """

    loss_lm: Float[Tensor, " batch"]
    """Negative log likelihood of each sample's answer, summed over its tokens (Eq. 6), in nats."""
    answer_tokens: Int[Tensor, " batch"]
    loss_vis: Float[Tensor, " images"] | None
    """L_vis of each image (Eq. 4), mean over the aligned layers; None if neither E_v nor S was given."""
    loss_att: Float[Tensor, " images"] | None
    """L_att of each image (Eq. 5), mean over the aligned layers; None if neither E_a nor regions were given."""
    has_target: Bool[Tensor, " images"] | None
    """Which images have a target of L_att; None means all. The others have an L_att of 0."""
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
        attention_normalization: AttentionNormalization = "sum",
        attention_rows: AttentionRows = "question",
        known_rows: int | None = None,
    ) -> None:
        """`known_rows`: rows of the published output table (None: all); the answer loss ignores later rows."""
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
        self.attention_normalization = attention_normalization
        self.attention_rows: AttentionRows = attention_rows
        self.image_token_id: int = llava.config.image_token_id
        self.known_rows: int = known_rows or llava.config.text_config.vocab_size
        width = llava.config.text_config.hidden_size
        self.points = [AlignedLayer(layer, decoder[layer], width, rotation) for layer in layers]
        self.aligned = nn.ModuleList(self.points)
        self.teacher_projection: TeacherProjection | None = None
        """Computes image tokens from E_v, in place of tower and projector."""
        self.query_experts = nn.ModuleDict()
        """MoE-Q of each aligned layer, by its number; empty without."""
        self._expert_hooks: list[RemovableHandle] = []
        # In a tuple, so that it is not registered twice.
        self._tower = (llava.model.vision_tower,)
        self._observed: Observation | None = None
        """Observation of the open `observe` block."""
        self._pass: Observation | None = None
        """Observation of the running forward pass."""
        llava.model.register_forward_pre_hook(self._begin_pass, with_kwargs=True)
        llava.model.register_forward_hook(self._end_pass, always_call=True)
        llava.model.language_model.register_forward_pre_hook(self._add_blank_image, with_kwargs=True)
        for aligned in self.points:
            hook = partial(self._rotate_images, aligned)
            decoder[aligned.layer].register_forward_pre_hook(hook, with_kwargs=True)

    @property
    def rotations(self) -> dict[int, Rotation]:
        """W of each aligned layer; empty if there is no W."""
        return {aligned.layer: aligned.rotation for aligned in self.points if aligned.rotation is not None}

    def project_teacher(self, channels: int) -> None:
        """Take image tokens from a new, trainable projection of E_v, which has `channels`, instead of from pixels."""
        width = self.config.text_config.hidden_size
        self.teacher_projection = TeacherProjection(channels, width).to(self.device)

    def add_query_experts(self) -> None:
        """Add new, trainable experts to the queries of the aligned layers (MoE-Q).

        Raises:
            SettingsError: a layer has no query projection of its own.
        """
        for aligned in self.points:
            queries = query_width(self.decoder_layers[aligned.layer], aligned.layer)
            experts = QueryExperts(self.config.text_config.hidden_size, queries)
            self.query_experts[str(aligned.layer)] = experts.to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def max_positions(self) -> int:
        """Longest sequence, in tokens, that the language model was built for."""
        text = self.config.text_config
        positions: int = text.max_position_embeddings
        rope = getattr(text, "rope_parameters", None) or {}
        if rope.get("rope_type") in ("linear", "dynamic"):  # config.json gives the positions before scaling
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
        regions: Float[Tensor, "images patches"] | None = None,
        weights: Float[Tensor, "images patches"] | None = None,
        autocast: torch.dtype | None = None,
        layout: BatchLayout | None = None,
    ) -> AlignedOutput:
        """Compute the losses of a batch; `labels` are IGNORED_LABEL outside the answers, images in reading order.

        The teacher's cosines S are computed from E_v if S is not given. The target of L_att is E_a, the share of each
        patch inside `regions` (zero for an image without any, which then has no L_att), or with both their mean.
        `weights` are those of the patches in L_vis, with sum 1; None means equal. A
        batch without images runs the same modules as any other, on a blank image with zero weight. With a projection of
        the teacher's features, the image tokens come from E_v, and `pixel_values` is not read. `autocast` is the
        half precision that the model computes in (None: that of its weights); the losses are float32.
        `AlignmentCollator` provides `layout`; without it, the layout is computed here, and the host waits for the GPU.
        """
        if layout is None:
            layout = BatchLayout.of(
                input_ids,
                attention_mask,
                labels,
                image_token_id=self.image_token_id,
                patches=self.patches,
                attention_rows=self.attention_rows,
            )
        shown = pixel_values if self.teacher_projection is None else E_v
        has_images = shown is not None
        images, rows = (layout.images, layout.rows) if has_images else (None, None)
        mask = attention_mask if layout.padded_left else None
        with (
            self.observe(images, rows, blank_image=not has_images) as observation,
            computing_in(autocast, input_ids.device),
        ):
            loss_lm = self.answer_loss(input_ids, mask, shown, layout)
        layers = tuple(_layer_output(observation, aligned.layer) for aligned in self.points) if has_images else ()
        with as_stored(input_ids.device):
            loss_vis = self._loss_vis(layers, teacher_cosines(E_v, S), weights)
            loss_att = self._loss_att(layers, E_a, regions)
        return AlignedOutput(
            loss_lm=loss_lm,
            answer_tokens=layout.labels.of_sample,
            loss_vis=loss_vis,
            loss_att=loss_att,
            has_target=None if regions is None or E_a is not None else has_region(regions),
            layers=layers,
        )

    def train(self, mode: bool = True) -> "AlignedStudent":
        """Set training mode; a vision tower without trained parameters stays in evaluation mode."""
        super().train(mode)
        tower = self._tower[0]
        if not any(parameter.requires_grad for parameter in tower.parameters()):
            tower.eval()
        return self

    @property
    def stock(self) -> LlavaForConditionalGeneration:
        """transformers' model without peft's wrapper; LoRA and W still act in it."""
        llava = self.llava
        return llava.get_base_model() if isinstance(llava, PeftModel) else llava

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The language model's layers."""
        layers: nn.ModuleList = self.stock.model.language_model.layers
        return layers

    def image_tokens(
        self, shown: Float[Tensor, "images 3 size size"] | Float[Tensor, "images patches channels"]
    ) -> Float[Tensor, "images patches width"]:
        """Compute image tokens, the language model's inputs at image positions.

        `shown` are pixels, for vision tower and projector; or E_v, for a student that projects the teacher's features.
        """
        if self.teacher_projection is not None:
            tokens: Tensor = self.teacher_projection(shown)
            return tokens.to(self.stock.get_input_embeddings().weight.dtype)
        return torch.stack(tuple(self.stock.get_image_features(shown, return_dict=True).pooler_output))

    @contextmanager
    def observe(
        self,
        images: ImageSpans | None = None,
        rows: TextRows | None = None,
        *,
        layers: Sequence[int] | None = None,
        blank_image: bool = False,
    ) -> Iterator[Observation]:
        """Record the single forward pass of the multimodal model inside the block.

        `forward` and `next_logits` observe their own passes. For any other pass:

            with student.observe(images, rows, layers=[8, 20]) as seen:
                student.stock(input_ids=input_ids, pixel_values=pixel_values)
            seen.attention_at(8)

        Args:
            images: positions of the images; None finds them in the token ids.
            rows: text tokens of each image, whose attention to that image is kept; None keeps no attention.
            layers: zero-based decoder layers whose attention is kept; None means the aligned layers.
            blank_image: in a pass without images, run tower, projector and W on a blank image with zero weight.

        Raises:
            RuntimeError: another block is open, or a second pass runs in this block.
        """
        if self._observed is not None:
            raise RuntimeError(
                "this student is already being observed. Leave the outer `observe` block first (`forward` and "
                "`next_logits` open their own)"
            )
        observed_layers = [aligned.layer for aligned in self.points] if layers is None else layers
        observation = Observation(
            images=images,
            rows=rows,
            layers=() if rows is None else tuple(observed_layers),
            blank_image=blank_image,
        )
        self._observed = observation
        try:
            with tapped([self.decoder_layers[layer].self_attn for layer in observation.layers], observation.taps()):
                yield observation
        finally:
            self._observed = None

    def next_logits(
        self,
        input_ids: Int[Tensor, "batch length"],
        images: ImageSpans,
        image_tokens: Float[Tensor, "images tokens width"] | None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch vocab"]:
        """Compute next-token logits after prompts with given image tokens, any number per image; W acts on them."""
        encoded = {} if image_tokens is None else encoded_images(image_tokens)
        with self.observe(images):
            logits: Tensor = self.stock(input_ids=input_ids, logits_to_keep=1, **encoded, **kwargs).logits
        return logits[:, -1]

    def checkpoint_gradients(self, kind: Checkpointing) -> None:
        """Enable gradient checkpointing, except for the aligned layers.

        Values that the losses read from a layer must be computed once, with gradients. A checkpointed layer first runs
        without gradients (`reentrant`), and runs again in the backward pass.
        """
        checkpoint_decoder(
            self.llava.get_decoder(),
            reentrant=kind == "reentrant",
            except_layers=[aligned.layer for aligned in self.points],
        )

    def answer_loss(
        self, input_ids: Tensor, attention_mask: Tensor | None, shown: Tensor | None, layout: BatchLayout
    ) -> Float[Tensor, " batch"]:
        """Negative log likelihood of each answer, summed over its tokens, in nats; one forward pass.

        `shown` are the images, as in `image_tokens`; None in a batch without any.
        For use inside an `observe` block; `forward` opens its own. Logits are computed only for the labels.
        """
        labels = layout.labels
        if self._observed is not None and self.query_experts:
            self._observed.prompt_ends = layout.prompt_ends
        images = {"pixel_values": shown}
        if self.teacher_projection is not None:
            images = {} if shown is None else encoded_images(self.image_tokens(shown))
        hidden_BLD = self.stock.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **images
        ).last_hidden_state
        logits_TV = self.stock.lm_head(hidden_BLD[labels.sample, labels.position])[..., : self.known_rows]
        nll_T = functional.cross_entropy(logits_TV.float(), labels.token, reduction="none")
        # One row for each sample, because adding by index has no fixed order on a GPU.
        nll_BA = nll_T.new_zeros(len(input_ids), labels.longest)
        return nll_BA.index_put((labels.sample, labels.number), nll_T).sum(dim=1)

    def _loss_vis(
        self,
        layers: Sequence[LayerOutput],
        teacher: Float[Tensor, "images patches patches"] | None,
        weights: Float[Tensor, "images patches"] | None,
    ) -> Float[Tensor, " images"] | None:
        if teacher is None or not layers:
            return None
        losses = [visual_alignment_loss(cosine_matrix(layer.tokens), teacher, weights) for layer in layers]
        return torch.stack(losses).mean(dim=0)

    def _loss_att(
        self,
        layers: Sequence[LayerOutput],
        E_a: Float[Tensor, "images patches"] | None,
        regions: Float[Tensor, "images patches"] | None,
    ) -> Float[Tensor, " images"] | None:
        how = self.attention_normalization
        if not layers or (E_a is None and regions is None):
            return None
        if regions is not None:
            losses = [region_alignment_loss(layer.attention, regions, E_a, how) for layer in layers]
        else:
            assert E_a is not None
            losses = [attention_alignment_loss(layer.attention, E_a, how) for layer in layers]
        return torch.stack(losses).mean(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        """Copy only the model, without a running pass."""
        return {**self.__dict__, "_observed": None, "_pass": None, "_expert_hooks": []}

    def _begin_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the multimodal model runs, find its images, if any."""
        observation = Observation() if self._observed is None else self._observed
        for layer in {*observation.layers, *(aligned.layer for aligned in self.points)}:
            if is_recomputed(self.decoder_layers[layer]):
                raise RuntimeError(
                    f"decoder layer {layer} is aligned or observed, but gradient checkpointing would recompute it in "
                    "the backward pass. Use `checkpoint_gradients`, which skips aligned layers, and observe other "
                    "layers under torch.no_grad()"
                )
        images = None
        if brings_images(kwargs):
            images = observation.images or find_images(kwargs["input_ids"], self.image_token_id, self.patches)
        observation.begin(images)
        self._pass = observation
        cache = prompt_cache(kwargs)
        for place, experts in self.query_experts.items():
            # For one pass, because LoRA replaces the module when it is added, and again when it is merged.
            projection = self.decoder_layers[int(place)].get_submodule("self_attn.q_proj")
            hook = partial(add_experts, cast(QueryExperts, experts), int(place), cache, observation)
            self._expert_hooks.append(projection.register_forward_hook(hook))

    def _end_pass(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """After the multimodal model ran, or raised an error."""
        self._pass = None
        while self._expert_hooks:
            self._expert_hooks.pop().remove()

    def _add_blank_image(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Before the language model runs on a batch without images, run a blank one through tower and projector.

        Processes that share parameters or gradients must run the same modules in the same order in every step: ZeRO-3
        and FSDP2 gather parameters module by module, and ZeRO-2 and 3 reduce gradients in the order in which they
        arrive, so a different order would mix up the parameters of two processes.
        """
        if self._pass is None or self._pass.images is not None or not self._pass.blank_image:
            return None
        side = self.config.vision_config.image_size
        shape = [3, side, side] if self.teacher_projection is None else [self.patches, self.teacher_projection.channels]
        blank = self.image_tokens(torch.zeros(1, *shape, device=kwargs["inputs_embeds"].device))
        return args, {**kwargs, "inputs_embeds": kwargs["inputs_embeds"] + zero_with_gradient(blank)}

    def _rotate_images(
        self, aligned: AlignedLayer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """Before an aligned layer runs."""
        observation = self._pass
        if observation is None:
            return None
        if observation.images is None:
            return aligned.rotate_without_images(args, kwargs) if observation.blank_image else None
        if observation.images.count == 0:
            return None
        tokens, new_arguments = aligned.rotate(observation.images, args, kwargs)
        observation.keep_tokens(aligned.layer, tokens)
        return new_arguments


def _layer_output(observation: Observation, layer: int) -> LayerOutput:
    return LayerOutput(layer=layer, tokens=observation.tokens_at(layer), attention=observation.attention_at(layer))
