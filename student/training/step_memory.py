"""Estimate of the memory of a training step, from shapes only.

The estimate includes the tensors that autograd keeps for the backward pass, layer by layer, in transformers' decoder
layers with peft's LoRA, and the temporary tensors at the two peaks of a step. It does not include the CUDA context,
workspaces of kernels and fragmentation of the allocator (see RESERVE). tests/student/training/test_step_memory.py
compares the activations with those of a real step, and tests/student/training/test_pretended_gpu.py the total with the
peak of a simulated GPU.
"""

from dataclasses import dataclass
from typing import Any

from ...choices import Checkpointing, Dtype
from ..adapters.trainable import TrainableParts
from ..alignment.aligned_student import AlignedStudent
from ..alignment.attention_rows import ROWS_AT_ONCE
from ..alignment.query_experts import EXPERTS, RANK
from ..compat.peft import is_lora_weight

FLOAT32 = 4
ADAMW_STATES = 2
TEACHER_WIDTH = 1024
"""Channels of the widest teacher's E_v, which is small compared with everything else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """Shape of the largest batch in one process."""

    samples: int
    tokens: int
    """Tokens of the longest sample, including image tokens."""
    answer_tokens: int
    """Tokens of the longest answer; logits are computed only for these."""
    images: int
    attention_rows: int = 0
    """Rows of M_a for one image: text tokens whose attention is kept at every aligned layer."""
    weighted_cosines: bool = False
    """Whether L_vis has weights, whose gradient needs one more matrix of the size of the cosines."""
    separate_gradients: int = 0
    """Values of the parameters whose gradient of L_vis is computed separately (`alignment.visual_gradient`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Peak memory of a step in bytes, in one process with the full student."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Tensors kept for the backward pass."""
    temporary: int
    """Temporary tensors of one layer, or of the logits."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.temporary


def estimate_memory(
    model: AlignedStudent,
    parts: TrainableParts,
    shape: StepShape,
    *,
    precision: Dtype,
    checkpointing: Checkpointing | None,
    mask_bytes: int = 1,
) -> MemoryEstimate:
    """Estimate the memory of one training step; `mask_bytes` per value of a dropout mask: 1, or 4 on CPUs."""
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    width = FLOAT32 if precision == "float32" else 2
    text = model.config.text_config
    tokens, layers = shape.samples * shape.tokens, int(text.num_hidden_layers)
    casts = 0 if width == FLOAT32 else width * sum(size for name, size in trained.items() if is_lora_weight(name))
    layer = tokens * _decoder_bytes(text, parts, width, mask_bytes) + casts // layers
    stream = tokens * int(text.hidden_size) * width
    """Size of the hidden states between two layers."""
    kept_layers = layers if checkpointing is None else len(model.points)
    kept = kept_layers * layer + (layers - kept_layers) * stream + stream + shape.images * _input_bytes(model)
    kept += len(model.query_experts) * tokens * _expert_bytes(width)
    kept += _alignment_bytes(model, shape, width) + _image_bytes(model, parts, shape, width)
    # The two peaks: logits, their gradient and the last norm's input; and a layer that is computed (recomputed if it
    # was not kept) up to its widest projection, where LoRA has its input in float32 before and after dropout.
    head = (tokens * int(text.hidden_size) * FLOAT32 + _cosine_bytes(model, shape), _logit_bytes(model, shape))
    top_is_kept = checkpointing is None or layers - 1 in [aligned.layer for aligned in model.points]
    in_layer = (0 if top_is_kept else layer, _temporary_bytes(text, parts, tokens, width))
    extra, temporary = max(head, in_layer, key=sum)
    values = sum(trained.values())
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=(values + shape.separate_gradients) * FLOAT32,
        optimizer=values * FLOAT32 * ADAMW_STATES,
        activations=kept + extra,
        temporary=temporary,
    )


def estimate_image_side(
    model: AlignedStudent, parts: TrainableParts, *, images: int, precision: Dtype
) -> MemoryEstimate:
    """Estimate the memory of a step in which only tower and projector run, on `images` images per process.

    The language model stays on the host, and is not counted.
    """
    llava = model.stock.model
    weights = [*llava.vision_tower.parameters(), *llava.multi_modal_projector.parameters()]
    values = sum(p.numel() for p in weights if p.requires_grad)
    width = FLOAT32 if precision == "float32" else 2
    shape = StepShape(samples=images, tokens=0, answer_tokens=0, images=images)
    tokens = model.patches * int(model.config.text_config.hidden_size)
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in weights),
        gradients=values * FLOAT32,
        optimizer=values * FLOAT32 * ADAMW_STATES,
        activations=_image_bytes(model, parts, shape, width) + images * _input_bytes(model),
        temporary=3 * images * tokens * FLOAT32,  # goal, difference and gradient of the loss
    )


def _decoder_bytes(text: Any, parts: TrainableParts, width: int, mask_bytes: int) -> int:
    """Bytes that one decoder layer keeps for each token."""
    d, f, heads = int(text.hidden_size), int(text.intermediate_size), int(text.num_attention_heads)
    head = int(getattr(text, "head_dim", None) or d // heads)
    attended, keys = heads * head, int(text.num_key_value_heads) * head
    norms = 2 * d * FLOAT32  # each norm keeps its input in float32
    attention = (2 * attended + 2 * keys) * width + heads * FLOAT32  # queries, keys, values, output; log-sum-exp
    mlp = 3 * f * width  # gate, its activation, and up
    if parts.language_model == "none":
        return norms + attention + mlp
    if parts.dropout:
        # Each of the seven linear layers applies dropout to its own copy of its input.
        inputs = (5 * d + attended + f) * (width + mask_bytes)
    elif width < FLOAT32:
        inputs = (5 * d + attended + f) * width  # one cast for each
    else:
        inputs = (2 * d + attended + f) * width  # q, k and v share their input, as do gate and up
    return norms + attention + mlp + inputs + 7 * parts.rank * width


def _expert_bytes(width: int) -> int:
    """Bytes that query experts keep for each token: their inner values before and after the gates."""
    return 2 * EXPERTS * RANK * width


def _temporary_bytes(text: Any, parts: TrainableParts, tokens: int, width: int) -> int:
    """Bytes at a layer's widest projection: its input, LoRA's copies in float32, and five residual stream tensors."""
    copies = 2 * FLOAT32 if parts.language_model == "lora" and width < FLOAT32 else 0
    return tokens * (int(text.intermediate_size) * (width + copies) + 5 * int(text.hidden_size) * width)


def _logit_bytes(model: AlignedStudent, shape: StepShape) -> int:
    """Bytes of log-probabilities, the gradient of the loss and that of the logits, in float32."""
    return shape.samples * shape.answer_tokens * model.known_rows * 3 * FLOAT32


def _cosine_bytes(model: AlignedStudent, shape: StepShape) -> int:
    """Bytes of three cosine matrices for every image at every aligned layer, until L_vis has its gradient."""
    return len(model.points) * shape.images * (3 + shape.weighted_cosines) * int(model.patches) ** 2 * FLOAT32


def _alignment_bytes(model: AlignedStudent, shape: StepShape, width: int) -> int:
    """Bytes of image tokens before and after W, their gradient, and attention rows, at every aligned layer."""
    text = model.config.text_config
    tokens = 3 * model.patches * text.hidden_size * width
    rows = min(shape.attention_rows, ROWS_AT_ONCE)
    attention = text.num_attention_heads * rows * (shape.tokens + model.patches) * FLOAT32
    rotation = sum(p.numel() for p in model.aligned.parameters()) * (width if width < FLOAT32 else 0)
    return int(len(model.points) * shape.images * (tokens + attention) + rotation)


def _input_bytes(model: AlignedStudent) -> int:
    """Bytes of an image's pixels and targets, in float32."""
    return int(3 * model.config.vision_config.image_size**2 + model.patches * TEACHER_WIDTH) * FLOAT32


def _image_bytes(model: AlignedStudent, parts: TrainableParts, shape: StepShape, width: int) -> int:
    """Bytes that projector and tower keep if they are trained; frozen ones keep nothing."""
    vision, d = model.config.vision_config, model.config.text_config.hidden_size
    values: int = 0
    if model.teacher_projection is not None:  # in float32: scaled E_v, input and output of the GELU
        values += model.patches * (model.teacher_projection.channels + 2 * d) * FLOAT32 // width
    if parts.projector == "full" or parts.vision_tower != "none":
        values += model.patches * (vision.hidden_size + 2 * d)
    if parts.vision_tower != "none":
        # Inputs and outputs of two norms, queries, keys, values, attention output, input and output of the activation.
        per_token = 9 * vision.hidden_size + 3 * vision.intermediate_size
        values += (model.patches + 1) * vision.num_hidden_layers * per_token
    return shape.images * values * width
