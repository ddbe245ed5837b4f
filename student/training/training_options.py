"""Options of the training loop."""

from dataclasses import dataclass

import torch

from ...choices import Checkpointing, Dtype, Sharding
from ..adapters.parameter_names import Part
from ..adapters.trainable import LearningRates

AUTOCAST: dict[Dtype, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Autocast dtype for each precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """Options of the training loop; pipeline/training/settings.py documents the source of each value."""

    alpha: float
    """Weight of L_vis (Eq. 7)."""
    beta: float
    """Weight of L_att (Eq. 7)."""
    visual_gradient: tuple[Part, ...] | None = None
    """Parts that L_vis changes; None means all."""
    learning_rates: LearningRates
    weight_decay: float
    max_grad_norm: float | None
    """Maximum gradient norm of an optimizer step; None disables clipping."""
    warmup_ratio: float
    """Share of all steps for linear warmup, followed by cosine decay to 0 (schedule.py)."""
    num_train_epochs: float
    max_steps: int | None
    """Optimizer steps; overrides `num_train_epochs`."""
    per_device_train_batch_size: int
    """Samples in one forward pass on one device."""
    gradient_accumulation_steps: int
    eval_steps: int | None
    """Optimizer steps between evaluations on the validation split; None means once per epoch."""
    save_steps: int | None
    """Optimizer steps between checkpoints; None means once per epoch."""
    logging_steps: int
    patience: int | None
    """Evaluations without a lower validation loss after which training stops; None disables early stopping."""
    group_by_length: bool
    """Whether samples of similar length share an optimizer step; the data set must then have `lengths`."""
    gradient_checkpointing: Checkpointing | None
    sharding: Sharding | None
    """How the student's weights are sharded over processes; None means that each has all of them (DDP)."""
    report_to: tuple[str, ...]
    """Additional loggers: "tensorboard", "wandb"."""
    precision: Dtype
    dataloader_num_workers: int
    """Processes that read images and targets; 0 reads in the training process."""
    seed: int
    device: str
