"""What the training loop needs to know."""

from dataclasses import dataclass
from typing import Literal

import torch

from ..adapters.trainable import LearningRates
from ..alignment.aligned_student import Checkpointing
from ..dtypes import Dtype

AUTOCAST: dict[Dtype, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What the model computes in."""

Sharding = Literal["fsdp2", "zero2", "zero3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """Everything the loop needs to know; pipeline/training/settings.py documents where each value comes from."""

    alpha: float
    """Weight of L_vis (Eq. 7)."""
    beta: float
    """Weight of L_att (Eq. 7)."""
    learning_rates: LearningRates
    weight_decay: float
    max_grad_norm: float | None
    """Norm that the gradient of an optimizer step is scaled down to; None: it never is."""
    warmup_ratio: float
    """Share of all steps over which the learning rates rise; then they fall by a cosine to 0 (schedule.py)."""
    num_train_epochs: float
    max_steps: int | None
    """Optimiser steps; overrides `num_train_epochs`."""
    per_device_train_batch_size: int
    """Samples in one forward pass on one device."""
    gradient_accumulation_steps: int
    eval_steps: int | None
    """Optimiser steps between evaluations on the validation split; None: once an epoch."""
    save_steps: int | None
    """Optimiser steps between checkpoints; None: once an epoch."""
    logging_steps: int
    patience: int | None
    """Evaluations without a lower validation loss after which training stops; None: it never does."""
    group_by_length: bool
    """Whether samples of about one length share an optimiser step; the data set must then know its `lengths`."""
    gradient_checkpointing: Checkpointing | None
    sharding: Sharding | None
    """How several processes share the student's weights; None: each has all of them (DDP)."""
    report_to: tuple[str, ...]
    """Where else logs go: "tensorboard", "wandb"."""
    precision: Dtype
    dataloader_num_workers: int
    """Processes that read images and targets; 0 reads in the training process."""
    seed: int
    device: str
