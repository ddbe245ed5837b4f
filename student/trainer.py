"""transformers' Trainer on an `AlignedStudent`, with every loss term averaged and logged on its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer

from ..errors import InputError
from .adapters import AdapterRecord, load_rotations, save_adapter
from .aligned import ROTATION_PREFIX, AlignedOutput
from .loading import Student
from .spans import IGNORED_LABEL

TERMS = ("loss_lm", "loss_vis", "loss_att")

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """Everything the loop needs to know; pipeline/settings.py documents where each value comes from."""

    alpha: float
    """Weight of L_vis (Eq. 7)."""
    beta: float
    """Weight of L_att (Eq. 7)."""
    learning_rate: float
    rotation_learning_rate: float
    weight_decay: float
    warmup_ratio: float
    """Share of all steps over which the learning rates rise from 0; then they fall by a cosine to 0."""
    epochs: float
    max_steps: int | None
    """Optimiser steps; overrides `epochs`."""
    batch_size: int
    """Samples in one forward pass on one device."""
    accumulation_steps: int
    evaluation_steps: int | None
    """Optimiser steps between evaluations on the validation split; None: once an epoch."""
    save_steps: int | None
    """Optimiser steps between checkpoints; None: once an epoch."""
    logging_steps: int
    precision: Precision
    workers: int
    """Processes that read images and targets; 0 reads in the training process."""
    seed: int
    device: str


class _Totals:
    """Sums and weights of the three terms since the last log; rows as TERMS, columns (sum, weight)."""

    def __init__(self) -> None:
        self._values = torch.zeros(len(TERMS), 2, dtype=torch.float64)

    def add(self, output: AlignedOutput, tokens: float, images: float) -> None:
        """Add a batch's sums over answer tokens and over images, and their numbers, both divided by `tokens`, `images`.

        Divided by the counts of the batch's whole optimiser step, every step weighs the same, as in the Trainer's own
        mean of `loss`; undivided, every token and every image does.
        """
        values: list[tuple[Tensor | None, int, float]] = [
            (output.loss_lm, int(output.answer_tokens.sum()), tokens),
            *((term, len(term) if term is not None else 0, images) for term in (output.loss_vis, output.loss_att)),
        ]
        for row, (term, number, divisor) in zip(self._values, values, strict=True):
            if term is not None and number:
                row += torch.tensor([float(term.detach().sum()), float(number)], dtype=torch.float64) / divisor

    def drain(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Weighted means over all processes; a term that never occurred is left out."""
        values = reduce(self._values).cpu()
        self._values = torch.zeros_like(self._values)
        return {
            name: float(total / count) for name, (total, count) in zip(TERMS, values, strict=True) if float(count) > 0
        }


class AlignmentTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose loss is Eq. 7, exact under gradient accumulation.

    The answer loss is a mean over all answer tokens, the alignment losses are means over all images, of everything
    that goes into one optimiser step, however it is cut into batches.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(self, student: Student, record: AdapterRecord, options: TrainingOptions, **kwargs: Any) -> None:
        super().__init__(model=student.model, **kwargs)
        self.student = student
        self.record = record
        self.options = options
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._totals = {"": _Totals(), "eval_": _Totals()}

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        """Batches of one optimiser step, each told how many answer tokens and images the whole step has."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.tensor([0, 0])
        for batch in batches:
            counts += _count_items(batch)
        if self.args.world_size > 1:
            # Gradients are averaged over processes: each divides by the mean count.
            counts = self.accelerator.reduce(counts.to(device), "sum") / self.args.world_size
        for batch in batches:
            batch["step_counts"] = counts
        return batches, None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """L = L_LLM + alpha L_vis + beta L_att (Eq. 7)."""
        counts = inputs.pop("step_counts", None)
        if counts is None:
            counts = _count_items(inputs)
        tokens, images = (float(count) for count in counts)
        output: AlignedOutput = model(**inputs)
        if model.training:
            self._totals[""].add(output, tokens, images)
        else:
            self._totals["eval_"].add(output, 1.0, 1.0)
        loss = output.loss_lm.sum() / max(tokens, 1.0)
        if output.loss_vis is not None and self.options.alpha:
            loss = loss + self.options.alpha * output.loss_vis.sum() / images
        if output.loss_att is not None and self.options.beta:
            loss = loss + self.options.beta * output.loss_att.sum() / images
        return (loss, output) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Tensor = self.compute_loss(model, inputs)
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the terms; for an evaluation, also the exact total over the validation split."""
        prefix = "eval_" if "eval_loss" in logs else ""
        if prefix or "loss" in logs:
            means = self._totals[prefix].drain(self._sum_over_processes)
            logs.update({f"{prefix}{name}": value for name, value in means.items()})
            if prefix and means:
                weights = {"loss_lm": 1.0, "loss_vis": self.options.alpha, "loss_att": self.options.beta}
                logs["eval_loss"] = sum(weights[name] * value for name, value in means.items())
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; W in a group of its own, without weight decay."""
        if self.optimizer is None:
            named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            rotation = [p for name, p in named if name.startswith(ROTATION_PREFIX)]
            others = [p for name, p in named if not name.startswith(ROTATION_PREFIX)]
            groups = [{"params": others, "lr": self.options.learning_rate, "weight_decay": self.args.weight_decay}]
            if rotation:
                groups.append({"params": rotation, "lr": self.options.rotation_learning_rate, "weight_decay": 0.0})
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
        return self.optimizer

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values.to(self.args.device), "sum")
        return reduced

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the adapter with its W, not a state dict of the whole model."""
        if self.args.should_save:
            save_adapter(self.student.model, self.record, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        weights = load_file(folder / "adapter_model.safetensors")
        outcome = set_peft_model_state_dict(self.student.model.llava, weights)
        if outcome.unexpected_keys:
            raise InputError(f"{folder} holds LoRA weights of another shape: {outcome.unexpected_keys[:3]}")
        load_rotations(self.student.model, folder)


def _count_items(batch: dict[str, Any]) -> Tensor:
    """(answer tokens, images) of a batch."""
    tokens = int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
    images = 0 if batch.get("pixel_values") is None else batch["pixel_values"].shape[0]
    return torch.tensor([tokens, images])
