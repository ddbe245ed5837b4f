"""The trainer with the loss of Eq. 7: answers and alignment, with every loss term averaged and logged separately."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..adapters.adapter_folder import AdapterRecord
from ..alignment.aligned_student import AlignedOutput
from ..inputs.alignment_dataset import FilledDataset
from ..inputs.collation import EncodedSample
from ..inputs.sample_order import EpochOrder
from ..loading.student_loading import Student
from ..transfer import to_device
from .restricted_gradient import parameters_of, restrict_gradient
from .student_trainer import StudentTrainer
from .training_options import AUTOCAST, TrainingOptions


class AlignmentTrainer(StudentTrainer):
    """Trainer with the loss of Eq. 7, exact with gradient accumulation.

    The answer loss is a mean over all answer tokens and the alignment losses are means over all images in one optimizer
    step, regardless of how the step is split into batches.
    """

    def __init__(
        self,
        student: Student,
        record: AdapterRecord,
        options: TrainingOptions,
        train: Dataset[EncodedSample],
        validation: Dataset[EncodedSample] | None,
        **kwargs: Any,
    ) -> None:
        processes = kwargs["args"].world_size
        multiple = options.per_device_train_batch_size * processes if processes > 1 else 1
        order = EpochOrder(
            len(train),  # type: ignore[arg-type]
            lengths=train.lengths if options.group_by_length else None,  # type: ignore[attr-defined]
            step_samples=options.per_device_train_batch_size * options.gradient_accumulation_steps * processes,
            multiple=multiple,
            seed=options.seed,
        )
        super().__init__(
            student,
            record,
            options,
            order,
            {"loss_lm": 1.0, "loss_vis": options.alpha, "loss_att": options.beta},
            model=student.model,
            train_dataset=FilledDataset(train, multiple=multiple),
            eval_dataset=None if validation is None else FilledDataset(validation, multiple=multiple),
            **kwargs,
        )

    def counts_of(self, batch: Mapping[str, Any]) -> tuple[int, int, int]:
        """Answer tokens, images, and images with a target of L_att."""
        counts: tuple[int, int, int] = batch["layout"].counts
        return counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """L = L_LLM + alpha L_vis + beta L_att (Eq. 7)."""
        counts: Tensor | None = inputs.pop("step_counts", None)
        output: AlignedOutput = model(**inputs, autocast=AUTOCAST[self.options.precision])
        if counts is None:  # an evaluation, where batches are weighted by their counts
            batch_counts = torch.tensor(inputs["layout"].counts, dtype=torch.float32)
            counts = to_device(batch_counts, output.loss_lm.device)
            self._totals["eval_"].add(output, *torch.ones_like(counts))
        else:
            self._totals[""].add(output, *counts)
        tokens, images, targets = counts
        loss = output.loss_lm.sum() / tokens.clamp(min=1.0)
        if output.loss_vis is not None and self.options.alpha:
            visual = self.options.alpha * output.loss_vis.sum() / images
            if self.options.visual_gradient is not None and visual.requires_grad:
                visual = restrict_gradient(visual, parameters_of(self.student.model, self.options.visual_gradient))
            loss = loss + visual
        if output.loss_att is not None and self.options.beta:
            loss = loss + self.options.beta * output.loss_att.sum() / targets.clamp(min=1e-6)
        return (loss, output) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate without changing the random state of training."""
        with torch.random.fork_rng(devices=[]):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics
