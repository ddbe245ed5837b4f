"""transformers' Trainer for an `AlignedStudent`, with every loss term averaged and logged separately."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import MedalignError
from ..adapters.adapter_folder import AdapterRecord, check_trained, save_adapter, trained_values
from ..adapters.trainable import parameter_groups
from ..alignment.aligned_student import AlignedOutput
from ..compat.accelerate import keep_fsdp_on_cpu, keep_precisions
from ..compat.transformers import StepwiseTrainer
from ..distributed_values import is_sharded
from ..finite import not_finite_error
from ..inputs.collation import EncodedSample, FilledDataset
from ..inputs.sample_order import EpochOrder
from ..loading.adapter_loading import load_trained
from ..loading.student_loading import Student
from ..transfer import to_device
from .checkpoints import (
    MARKER,
    checkpoint_being_written,
    last_whole_checkpoint,
    mark_whole,
    optimizer_state,
    read_state,
    reading_checkpoint,
    restore_optimizer,
)
from .loss_totals import LossTotals
from .restricted_gradient import parameters_of, restrict_gradient
from .schedule import check_schedule, make_scheduler
from .training_options import AUTOCAST, TrainingOptions

OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"


MAX_SKIPPED_STEPS = 20
"""Maximum number of consecutive float16 steps with overflow; the loss scale halves each time, from 65536 to 1 in 16."""

UNCHECKED_STEPS = 50
"""Number of steps after which losses and gradients are checked, even if the next log line is further away."""


class _EpochSetter(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the sample order, also if a resumed run skips the beginning of an epoch."""

    def __init__(self, order: EpochOrder) -> None:
        self._order = order

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._order.set_epoch(int(state.epoch or 0))


class AlignmentTrainer(StepwiseTrainer):
    """Trainer with the loss of Eq. 7, exact with gradient accumulation.

    The answer loss is a mean over all answer tokens and the alignment losses are means over all images in one optimizer
    step, regardless of how the step is split into batches.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: Any
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
        processes = kwargs["args"].world_size
        multiple = options.per_device_train_batch_size * processes if processes > 1 else 1
        super().__init__(
            model=student.model,
            train_dataset=FilledDataset(train, multiple=multiple),
            eval_dataset=None if validation is None else FilledDataset(validation, multiple=multiple),
            **kwargs,
        )
        self.order = EpochOrder(
            len(train),  # type: ignore[arg-type]
            lengths=train.lengths if options.group_by_length else None,  # type: ignore[attr-defined]
            step_samples=options.per_device_train_batch_size
            * options.gradient_accumulation_steps
            * self.args.world_size,
            multiple=multiple,
            seed=options.seed,
        )
        self.add_callback(_EpochSetter(self.order))
        self.student = student
        self.record = record
        self.options = options
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._totals = {"": LossTotals(), "eval_": LossTotals()}
        self._waited, self._since = 0.0, time.perf_counter()
        self._skipped = 0  # consecutive float16 steps
        self._skipped_since_log = 0
        self._drawn_for: int | None = None

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp_plugin_args is not None and not self.is_fsdp_enabled:
            self.is_fsdp_enabled = True
            keep_fsdp_on_cpu(self.accelerator.state, self.args.fsdp_plugin_args)
        if self.is_fsdp_enabled:
            keep_precisions(self.accelerator.state)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        """Batches of one optimizer step, each with `BatchLayout.counts` of the whole step as `step_counts`."""
        if self.order.epoch != self._drawn_for:
            # Draw one random number per epoch, as a loader does for its workers' seeds unless they persist, so that
            # dropout does not depend on workers or on where a run was resumed.
            self._drawn_for = self.order.epoch
            torch.empty((), dtype=torch.int64).random_()
        started = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._waited += time.perf_counter() - started
        batch_counts = [batch["layout"].counts for batch in batches]
        counts = to_device(torch.tensor(batch_counts, dtype=torch.float32).reshape(-1, 3).sum(dim=0), device)
        if self.args.world_size > 1:
            # Gradients are averaged over processes, so each process divides by the mean count.
            counts = self.accelerator.reduce(counts, "sum") / self.args.world_size
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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the loss terms and, for an evaluation, the exact total over the validation split.

        Raises:
            MedalignError: a term of an evaluation is NaN or infinite.
        """
        prefix = "eval_" if "eval_loss" in logs else ""
        if prefix or "loss" in logs:
            self.check_steps()
            means = self._totals[prefix].drain(self._sum_over_processes)
            logs.update({f"{prefix}{name}": value for name, value in means.items()})
            if prefix and not all(map(math.isfinite, means.values())):
                bad = [f"{prefix}{name}" for name, value in means.items() if not math.isfinite(value)]
                rate = self.lr_scheduler.get_last_lr()[0]
                raise self._not_finite(f"the evaluation after step {self.state.global_step}", bad, rate)
            if prefix and means:
                weights = {"loss_lm": 1.0, "loss_vis": self.options.alpha, "loss_att": self.options.beta}
                logs["eval_loss"] = sum(weights[name] * value for name, value in means.items())
            if not prefix:
                logs["data_wait"] = self._share_waited()
                if self._skipped_since_log:
                    logs["skipped_steps"] = self._skipped_since_log
                    self._skipped_since_log = 0
        for name in [name for name, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]:
            del logs[name]  # the gradient norm of a skipped step; JSON cannot represent it
        super().log(logs, start_time)

    def end_step(self, gradient_norm: Tensor | float | None) -> None:
        """Record a step's gradient norm without waiting for it; non-finite values end the run at the next log."""
        totals = self._totals[""]
        totals.end_step(self.state.global_step + 1, gradient_norm, self.lr_scheduler.get_last_lr()[0])
        if totals.unsettled >= UNCHECKED_STEPS:
            self.check_steps()

    def check_steps(self) -> None:
        """Stop the run if a step since the last check was not finite.

        Weights have changed by then, but are not saved, because every checkpoint and evaluation is preceded by a log.

        Raises:
            MedalignError: a gradient norm or a step's losses were NaN or infinite, in any process.
        """
        scaled_by_deepspeed = self.is_deepspeed_enabled and self.options.precision == "float16"
        may_skip = self.accelerator.scaler is not None or scaled_by_deepspeed
        for health in self._totals[""].settle(self._sum_over_processes):
            moment = f"step {health.step}"
            if health.losses:
                raise self._not_finite(moment, health.losses, health.rate)
            if health.gradient and not may_skip:
                raise self._not_finite(moment, ["the gradient norm"], health.rate)
            self._skipped = self._skipped + 1 if health.gradient else 0
            self._skipped_since_log += health.gradient
            if self._skipped > MAX_SKIPPED_STEPS:
                raise self._not_finite(moment, [f"the gradient norm of {self._skipped} steps in a row"], health.rate)

    def _not_finite(self, moment: str, names: Sequence[str], rate: float) -> MedalignError:
        return not_finite_error(
            moment,
            names,
            rate=rate,
            precision=self.options.precision,
            checkpoint=last_whole_checkpoint(Path(self.args.output_dir)),
            store=None if self.record.store is None else self.record.settings.get("data", {}).get("store", "STORE"),
        )

    def _share_waited(self) -> float:
        """Share of the time since the last log that this process spent waiting for batches."""
        now = time.perf_counter()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate without changing the random state of training."""
        with torch.random.fork_rng(devices=[]):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def train_order(self) -> EpochOrder:
        return self.order

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW with the parameter groups of `student/adapters/trainable.py`."""
        if self.optimizer is None:
            groups = parameter_groups(self.model, self.options.learning_rates, self.options.weight_decay)
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Create the scheduler with linear warmup and cosine decay (`schedule.py`)."""
        if self.lr_scheduler is None:
            scheduled = self.optimizer if optimizer is None else optimizer
            assert scheduled is not None
            self.lr_scheduler = make_scheduler(scheduled, steps=num_training_steps, ratio=self.options.warmup_ratio)
        scheduler: torch.optim.lr_scheduler.LRScheduler = self.lr_scheduler
        return scheduler

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values.to(self.args.device), "sum")
        return reduced

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter, with W and fully trained parts, instead of a state dict of the full model.

        All processes gather the values; one writes them.
        """
        assert is_sharded(self.student.model) == (self.options.sharding == "fsdp2")
        values = trained_values(self.student.model)
        folder = Path(output_dir or self.args.output_dir)
        check_trained(values, folder)  # in every process, so that no process waits for one that has stopped
        if self.args.should_save:
            save_adapter(self.student.model, self.record, folder, values)

    def load_weights(self, checkpoint: Path) -> None:
        load_trained(self.student.model, checkpoint)

    def write_checkpoint(self, folder: Path, write: Callable[[], None]) -> None:
        """Write a checkpoint that is recognized as incomplete until all its files are on disk."""
        with checkpoint_being_written(folder):
            if self.args.should_save:  # an evaluation after the step that saved it writes it again
                (folder / MARKER).unlink(missing_ok=True)
            write()
            if self.args.should_save:
                mark_whole(folder)

    def load_random_state(self, checkpoint: Path, load: Callable[[], None]) -> None:
        is_single = self.args.world_size == 1
        with reading_checkpoint(checkpoint / f"rng_state{'' if is_single else f'_{self.args.process_index}'}.pth"):
            load()

    def save_optimizer(self, folder: Path) -> None:
        assert self.optimizer is not None
        state = optimizer_state(self.student.model, self.optimizer)
        if self.args.should_save:
            torch.save(state, folder / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_FILE)

    def load_optimizer(self, checkpoint: Path) -> None:
        assert self.optimizer is not None
        restore_optimizer(self.student.model, self.optimizer, read_state(checkpoint / OPTIMIZER_FILE))
        self.lr_scheduler.load_state_dict(read_state(checkpoint / SCHEDULER_FILE))
        check_schedule(self.lr_scheduler, checkpoint)
