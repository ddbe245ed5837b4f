"""The trainer that regresses a student's image tokens onto translated ones, and keeps those of anchors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.adapter_folder import AdapterRecord
from ..loading.student_loading import Student
from ..training.student_trainer import StudentTrainer
from ..training.training_options import AUTOCAST, TrainingOptions
from .token_data import MixedOrder, TokenDataset
from .token_regressor import RegressionOutput, TokenRegressor


class RegressionTrainer(StudentTrainer):
    """Trainer with `L = L_translation + keep L_keep`, each a mean over the images of its kind in an optimizer step."""

    def __init__(
        self,
        student: Student,
        regressor: TokenRegressor,
        record: AdapterRecord,
        options: TrainingOptions,
        data: TokenDataset,
        order: MixedOrder,
        *,
        keep: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            student,
            record,
            options,
            order,
            {"loss_translation": 1.0, "loss_keep": keep},
            model=regressor,
            train_dataset=data,
            **kwargs,
        )

    def counts_of(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """Targets and anchors."""
        targets = len(batch["features"]) if "features" in batch else 0
        return targets, len(batch["pixel_values"]) - targets

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """L = L_translation + keep L_keep."""
        counts: Tensor = inputs.pop("step_counts")
        output: RegressionOutput = model(**inputs, autocast=AUTOCAST[self.options.precision])
        loss: Tensor | float = 0.0
        for row, (name, weight) in enumerate(self.weights.items()):
            term: Tensor | None = getattr(output, name)
            if term is not None:
                self._totals[""].add_term(row, term, torch.ones_like(term), counts[row])
                loss = loss + weight * term.sum() / counts[row]
        return (loss, output) if return_outputs else loss
