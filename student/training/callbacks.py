"""Callbacks of a training run: progress, the log, Ctrl-C, and early stopping."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...atomic import append
from ...progress import Progress


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Shows progress, writes log.jsonl, and saves a checkpoint at the end of the step after Ctrl-C."""

    def __init__(self, progress: Progress, log_file: Path, resumed_from: int = 0) -> None:
        self._progress = progress
        self._resumed_from = resumed_from
        self._log_file = log_file
        self.interrupted = False

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._progress.note("interrupted: saving a checkpoint after this step (press Ctrl-C again to stop at once)")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress.start("training", state.max_steps)
        self._progress.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress.advance()
        if _any_process(self.interrupted, args):
            self.interrupted = True
            control.should_save = True
            control.should_training_stop = True
        _log_before_saving(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        _log_before_saving(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if self._resumed_from and "train_loss" in logs:
            # transformers divides the losses since the last start by all steps; its other values are of this start.
            logs = {name: value for name, value in logs.items() if name != "train_loss"}
            logs["resumed_from_step"] = self._resumed_from
        append(self._log_file, json.dumps({"step": state.global_step, **logs}, allow_nan=False) + "\n")
        losses = {name: value for name, value in logs.items() if "loss" in name and name != "train_loss"}
        if losses:
            terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
            self._progress.note(f"step {state.global_step:>5}  {terms}")


def _log_before_saving(control: TrainerControl) -> None:
    """Log before every checkpoint, so that a resumed run writes the same log lines as an uninterrupted one."""
    if control.should_save or control.should_evaluate:
        control.should_log = True


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Saves at every evaluation, and stops after `patience` evaluations in a row without improvement."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        losses = [logs["eval_loss"] for logs in state.log_history if "eval_loss" in logs]
        control.should_save = True
        if is_out_of_patience(losses, self._patience):
            control.should_training_stop = True


def is_out_of_patience(losses: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` evaluations were not better than the best one before them."""
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


def _any_process(flag: bool, args: TrainingArguments) -> bool:
    """Whether the flag is set in any process; all processes must call this, so that they stop at the same step."""
    if args.world_size == 1:
        return flag
    flags = torch.tensor(int(flag), device=args.device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)
