"""What a training step needs in memory, worked out from the shapes before anything is run.

Counted are the tensors that autograd keeps for the backward pass, layer by layer, as transformers' decoder layers with
peft's LoRA make them. Not counted: the allocator's fragments, kernels' workspaces and what a frozen vision tower uses
for a moment. tests/student/test_memory.py holds the activations against those of a real step.
"""

from dataclasses import dataclass
from typing import Any

from .aligned import AlignedStudent, Checkpointing
from .options import Precision
from .trainable import TrainableParts

FLOAT32 = 4
ADAMW_STATES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """The largest batch that one process meets."""

    samples: int
    tokens: int
    """Of the longest sample, image tokens included."""
    answer_tokens: int
    """Of the longest answer; logits are computed where some sample of the batch has an answer token."""
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes in one process that has the whole student."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.activations


def estimate_memory(
    model: AlignedStudent,
    parts: TrainableParts,
    shape: StepShape,
    *,
    precision: Precision,
    checkpointing: Checkpointing | None,
    mask_bytes: int = 1,
) -> MemoryEstimate:
    """Memory of one training step; `mask_bytes` is what a dropout mask takes for a value: 1, on CPUs a whole float."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    width = FLOAT32 if precision == "float32" else 2
    text = model.config.text_config
    per_layer = shape.samples * shape.tokens * _decoder_bytes(text, parts, width, mask_bytes)
    layers, whole = text.num_hidden_layers, text.num_hidden_layers
    kept_inputs = 0
    if checkpointing is not None:
        whole = min(layers, len(model.points) + 1)  # the aligned ones, and the one that is being computed again
        kept_inputs = (layers - whole) * shape.samples * shape.tokens * text.hidden_size * width
    activations = whole * per_layer + kept_inputs + _head_bytes(text, shape, width)
    activations += _alignment_bytes(model, shape) + _image_bytes(model, parts, shape, width)
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=trained * FLOAT32,
        optimiser=trained * FLOAT32 * ADAMW_STATES,
        activations=activations,
    )


def _decoder_bytes(text: Any, parts: TrainableParts, width: int, mask_bytes: int) -> int:
    """Kept for each token by one decoder layer."""
    d, f, heads = int(text.hidden_size), int(text.intermediate_size), int(text.num_attention_heads)
    attended: int = heads * (getattr(text, "head_dim", None) or d // heads)
    norms = 2 * d * FLOAT32  # each norm keeps its input in float32
    attention = 4 * attended * width  # queries, keys and values as expanded for grouped queries, and the output
    mlp = 3 * f * width  # gate, its activation, and up
    if parts.language_model == "none":
        return norms + attention + mlp
    if parts.dropout:
        # Each of the seven linear layers drops out its own copy of its input.
        inputs = (5 * d + attended + f) * (width + mask_bytes)
    else:
        inputs = (2 * d + attended + f) * width  # q, k and v share theirs, and so do gate and up
    return norms + attention + mlp + inputs + 7 * parts.rank * width


def _head_bytes(text: Any, shape: StepShape, width: int) -> int:
    """Embeddings, last norm, logits, their copy in float32, its logarithms and their gradient."""
    positions = shape.samples * min(shape.tokens, shape.answer_tokens * shape.samples)
    logits: int = positions * text.vocab_size * (width + 3 * FLOAT32)
    return logits + shape.samples * shape.tokens * int(text.hidden_size) * 2 * FLOAT32


def _alignment_bytes(model: AlignedStudent, shape: StepShape) -> int:
    """Three cosine matrices and the image tokens, before and after W, of every image at every aligned layer."""
    per_image: int = 3 * model.patches**2 + 4 * model.patches * model.config.text_config.hidden_size
    return len(model.points) * shape.images * per_image * FLOAT32


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
