"""What a training step needs in memory, worked out from the shapes before anything is run.

Counted are the tensors that autograd keeps for the backward pass, layer by layer, as transformers' decoder layers with
peft's LoRA make them, and what the two largest moments of a step hold for a while besides. Not counted: the CUDA
context, kernels' workspaces and the allocator's fragments (see RESERVE). tests/student/training/test_step_memory.py
compares the activations with those of a real step, tests/student/training/test_pretended_gpu.py the total with a
pretended GPU's peak.
"""

from dataclasses import dataclass
from typing import Any

from ..adapters.trainable import TrainableParts
from ..alignment.aligned_student import AlignedStudent, Checkpointing
from ..alignment.attention_rows import ROWS_AT_ONCE
from ..compat.peft import is_lora_weight
from ..dtypes import Dtype

FLOAT32 = 4
ADAMW_STATES = 2
TEACHER_WIDTH = 1024
"""Channels of the widest teacher's E_v, which are small beside all else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """The largest batch that one process meets."""

    samples: int
    tokens: int
    """Of the longest sample, image tokens included."""
    answer_tokens: int
    """Of the longest answer; logits are computed for these alone."""
    images: int
    question_tokens: int = 0
    """Of the longest question behind an image; their attention rows are kept at every aligned layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes in one process that has the whole student, at the largest moment of a step."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    """What is kept for the backward pass."""
    temporary: int
    """What lives for the time of one layer, or of the logits."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations + self.temporary


def estimate_memory(
    model: AlignedStudent,
    parts: TrainableParts,
    shape: StepShape,
    *,
    precision: Dtype,
    checkpointing: Checkpointing | None,
    mask_bytes: int = 1,
) -> MemoryEstimate:
    """Memory of one training step; `mask_bytes` is what a dropout mask takes for a value: 1, on CPUs a whole float."""
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    width = FLOAT32 if precision == "float32" else 2
    text = model.config.text_config
    tokens, layers = shape.samples * shape.tokens, int(text.num_hidden_layers)
    casts = 0 if width == FLOAT32 else width * sum(size for name, size in trained.items() if is_lora_weight(name))
    layer = tokens * _decoder_bytes(text, parts, width, mask_bytes) + casts // layers
    stream = tokens * int(text.hidden_size) * width
    """The hidden states between two layers."""
    whole = layers if checkpointing is None else len(model.points)
    kept = whole * layer + (layers - whole) * stream + stream + shape.images * _input_bytes(model)
    kept += _alignment_bytes(model, shape, width) + _image_bytes(model, parts, shape, width)
    # Once logits, their gradient and the last norm's input are there, and once a layer is computed (again, where it
    # was not kept) up to its widest projection, where LoRA has its input in float32 before and after dropout.
    head = (tokens * int(text.hidden_size) * FLOAT32 + _cosine_bytes(model, shape), _logit_bytes(model, shape))
    top_is_kept = checkpointing is None or layers - 1 in [aligned.layer for aligned in model.points]
    in_layer = (0 if top_is_kept else layer, _temporary_bytes(text, parts, tokens, width))
    more, temporary = max(head, in_layer, key=sum)
    values = sum(trained.values())
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=values * FLOAT32,
        optimiser=values * FLOAT32 * ADAMW_STATES,
        activations=kept + more,
        temporary=temporary,
    )


def _decoder_bytes(text: Any, parts: TrainableParts, width: int, mask_bytes: int) -> int:
    """Kept for each token by one decoder layer."""
    d, f, heads = int(text.hidden_size), int(text.intermediate_size), int(text.num_attention_heads)
    head = int(getattr(text, "head_dim", None) or d // heads)
    attended, keys = heads * head, int(text.num_key_value_heads) * head
    norms = 2 * d * FLOAT32  # each norm keeps its input in float32
    attention = (2 * attended + 2 * keys) * width + heads * FLOAT32  # queries, keys, values, output; its log-sums
    mlp = 3 * f * width  # gate, its activation, and up
    if parts.language_model == "none":
        return norms + attention + mlp
    if parts.dropout:
        # Each of the seven linear layers drops out its own copy of its input.
        inputs = (5 * d + attended + f) * (width + mask_bytes)
    elif width < FLOAT32:
        inputs = (5 * d + attended + f) * width  # cast for each of them
    else:
        inputs = (2 * d + attended + f) * width  # q, k and v share theirs, and so do gate and up
    return norms + attention + mlp + inputs + 7 * parts.rank * width


def _temporary_bytes(text: Any, parts: TrainableParts, tokens: int, width: int) -> int:
    """At a layer's widest projection: its input, LoRA's copies in float32, and five states of the residual stream."""
    copies = 2 * FLOAT32 if parts.language_model == "lora" and width < FLOAT32 else 0
    return tokens * (int(text.intermediate_size) * (width + copies) + 5 * int(text.hidden_size) * width)


def _logit_bytes(model: AlignedStudent, shape: StepShape) -> int:
    """Log-probabilities, the gradient of the loss, and that of the logits, in float32."""
    return shape.samples * shape.answer_tokens * model.known_rows * 3 * FLOAT32


def _cosine_bytes(model: AlignedStudent, shape: StepShape) -> int:
    """Three cosine matrices of every image at every aligned layer, until L_vis has its gradient."""
    return len(model.points) * shape.images * 3 * int(model.patches) ** 2 * FLOAT32


def _alignment_bytes(model: AlignedStudent, shape: StepShape, width: int) -> int:
    """Image tokens before and after W, their gradient, and the question's attention rows, at every aligned layer."""
    text = model.config.text_config
    tokens = 3 * model.patches * text.hidden_size * width
    rows = min(shape.question_tokens, ROWS_AT_ONCE)
    attention = text.num_attention_heads * rows * (shape.tokens + model.patches) * FLOAT32
    rotation = sum(p.numel() for p in model.aligned.parameters()) * (width if width < FLOAT32 else 0)
    return int(len(model.points) * shape.images * (tokens + attention) + rotation)


def _input_bytes(model: AlignedStudent) -> int:
    """Pixels and targets of an image, in float32."""
    return int(3 * model.config.vision_config.image_size**2 + model.patches * TEACHER_WIDTH) * FLOAT32


def _image_bytes(model: AlignedStudent, parts: TrainableParts, shape: StepShape, width: int) -> int:
    """What projector and tower keep where they are trained; frozen ones keep nothing."""
    vision, d = model.config.vision_config, model.config.text_config.hidden_size
    values: int = 0
    if parts.projector == "full" or parts.vision_tower != "none":
        values += model.patches * (vision.hidden_size + 2 * d)
    if parts.vision_tower != "none":
        # Two norms' inputs and outputs, queries, keys, values, attention's output, and the two sides of the activation.
        per_token = 9 * vision.hidden_size + 3 * vision.intermediate_size
        values += (model.patches + 1) * vision.num_hidden_layers * per_token
    return shape.images * values * width
