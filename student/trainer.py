"""transformers' Trainer on an `AlignedStudent`, with every loss term averaged and logged on its own."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .adapters import AdapterRecord, load_trained, save_adapter, trained_values
from .aligned import AlignedOutput
from .checkpoints import mark_whole, optimiser_state, restore_optimiser
from .compat.accelerate import keep_fsdp_on_cpu
from .compat.transformers import StepwiseTrainer
from .data import EncodedSample, FilledDataset
from .loading import Student
from .options import TrainingOptions
from .order import EpochOrder
from .sharded import is_sharded
from .spans import IGNORED_LABEL
from .trainable import parameter_groups

TERMS = ("loss_lm", "loss_vis", "loss_att")

OPTIMISER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"


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


class _EpochSetter(TrainerCallback):  # type: ignore[misc]
    """Tells the order of samples which epoch begins, also where a resumed run skips the beginning of one."""

    def __init__(self, order: EpochOrder) -> None:
        self._order = order

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._order.set_epoch(int(state.epoch or 0))


class AlignmentTrainer(StepwiseTrainer):
    """Trainer whose loss is Eq. 7, exact under gradient accumulation.

    The answer loss is a mean over all answer tokens, the alignment losses are means over all images, of everything
    that goes into one optimiser step, however it is cut into batches.
    """

    optimizer: torch.optim.Optimizer | None
    is_fsdp_enabled: bool

    def __init__(
        self,
        student: Student,
        record: AdapterRecord,
        options: TrainingOptions,
        train: Dataset[EncodedSample],
        validation: Dataset[EncodedSample] | None,
        **kwargs: Any,
    ) -> None:
        fill = options.batch_size * kwargs["args"].world_size if kwargs["args"].world_size > 1 else 1
        super().__init__(
            model=student.model,
            train_dataset=FilledDataset(train, multiple=fill),
            eval_dataset=None if validation is None else FilledDataset(validation, multiple=fill),
            **kwargs,
        )
        self.order = EpochOrder(
            len(train),  # type: ignore[arg-type]
            lengths=train.lengths if options.group_by_length else None,  # type: ignore[attr-defined]
            step_samples=options.batch_size * options.accumulation_steps * self.args.world_size,
            multiple=fill,
            seed=options.seed,
        )
        self.add_callback(_EpochSetter(self.order))
        self.student = student
        self.record = record
        self.options = options
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._totals = {"": _Totals(), "eval_": _Totals()}
        self._waited, self._since = 0.0, time.perf_counter()

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp_plugin_args is not None and not self.is_fsdp_enabled:
            self.is_fsdp_enabled = True
            keep_fsdp_on_cpu(self.accelerator.state, self.args.fsdp_plugin_args)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        """Batches of one optimiser step, each told how many answer tokens and images the whole step has."""
        started = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._waited += time.perf_counter() - started
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the terms; for an evaluation, also the exact total over the validation split."""
        prefix = "eval_" if "eval_loss" in logs else ""
        if prefix or "loss" in logs:
            means = self._totals[prefix].drain(self._sum_over_processes)
            logs.update({f"{prefix}{name}": value for name, value in means.items()})
            if prefix and means:
                weights = {"loss_lm": 1.0, "loss_vis": self.options.alpha, "loss_att": self.options.beta}
                logs["eval_loss"] = sum(weights[name] * value for name, value in means.items())
            if not prefix:
                logs["data_wait"] = self._share_waited()
        super().log(logs, start_time)

    def _share_waited(self) -> float:
        """Share of the time since the last log that this process spent waiting for batches."""
        now = time.perf_counter()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluation that leaves training's random numbers alone."""
        with torch.random.fork_rng(devices=[]):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def train_order(self) -> EpochOrder:
        return self.order

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the groups of `trainable.py`."""
        if self.optimizer is None:
            groups = parameter_groups(self.model, self.options.learning_rates, self.options.weight_decay)
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
        return self.optimizer

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values.to(self.args.device), "sum")
        return reduced

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter with its W and whatever else is trained, not a state dict of the whole model.

        All processes gather, one writes.
        """
        assert is_sharded(self.student.model) == (self.options.sharding == "fsdp2")
        values = trained_values(self.student.model)
        if self.args.should_save:
            save_adapter(self.student.model, self.record, Path(output_dir or self.args.output_dir), values)

    def load_weights(self, checkpoint: Path) -> None:
        load_trained(self.student.model, checkpoint)

    def finish_checkpoint(self, folder: Path) -> None:
        if self.args.should_save:
            mark_whole(folder)

    def save_optimizer(self, folder: Path) -> None:
        assert self.optimizer is not None
        state = optimiser_state(self.student.model, self.optimizer)
        if self.args.should_save:
            torch.save(state, folder / OPTIMISER_FILE)
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_FILE)

    def load_optimizer(self, checkpoint: Path) -> None:
        assert self.optimizer is not None
        saved = torch.load(checkpoint / OPTIMISER_FILE, map_location="cpu", weights_only=True)
        restore_optimiser(self.student.model, self.optimizer, saved)
        self.lr_scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER_FILE, weights_only=True))


def _count_items(batch: dict[str, Any]) -> Tensor:
    """(answer tokens, images) of a batch."""
    tokens = int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
    images = 0 if batch.get("pixel_values") is None else batch["pixel_values"].shape[0]
    return torch.tensor([tokens, images])
