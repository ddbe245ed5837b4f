"""A training run: arguments of the loop, progress, Ctrl-C, resuming, and its output."""

import importlib.util
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...atomic import write_whole
from ...errors import InputError, MedalignError, SettingsError
from ...progress import Progress
from ...saved_records import parse_record
from ..adapters.adapter_folder import AdapterRecord, check_trained, save_adapter, trained_values
from ..compat.transformers import one_device, own_precision
from ..inputs.collation import AlignmentCollator, EncodedSample
from ..loading.adapter_loading import load_trained
from ..loading.student_loading import Student
from ..processes import Processes
from ..quiet_transformers import quiet_transformers
from .callbacks import KeepBest, Watcher, is_out_of_patience
from .checkpoints import STATE_FILE, last_whole_checkpoint, reading_checkpoint, remove_cut_off, room_for
from .fsdp import sharding_arguments
from .student_trainer import StudentTrainer
from .trainer import AlignmentTrainer
from .training_options import TrainingOptions

LOG_FILE = "log.jsonl"

_TERM = re.compile(r"(?:eval_)?loss_[a-z]+|eval_loss")
"""Names of loss terms in the log."""


class _LogLine(BaseModel):
    """A line of log.jsonl."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False)]]

    step: Annotated[int, Field(strict=True, ge=0)]


_LOG_LINE = TypeAdapter(_LogLine)

REPORTERS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Packages required for each value of `report_to`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """Result of a training run."""

    steps: int
    planned_steps: int
    interrupted: bool
    seconds: float
    """Of this start alone: of a resumed run, from step `resumed_from` on."""
    final: dict[str, float]
    """Last logged value of every term, training (`loss_lm`, ...) and validation (`eval_loss_lm`, ...)."""
    best: dict[str, object] | None
    """Step, validation loss and checkpoint of the best adapter, which was kept; None without `patience`."""
    resumed_from: int = 0
    """Step of the checkpoint that this start continued from; 0 if the run was not interrupted."""


MakeTrainer = Callable[[TrainingArguments, list[TrainerCallback]], StudentTrainer]
"""Makes the trainer of a run, when all processes have joined and incomplete checkpoints are removed."""


def train_student(
    student: Student,
    record: AdapterRecord,
    options: TrainingOptions,
    train: Dataset[EncodedSample],
    validation: Dataset[EncodedSample] | None,
    out: Path,
    progress: Progress,
    *,
    resume: bool = False,
) -> TrainingResult:
    """Train the trainable parameters of `student` with the loss of Eq. 7 and write the adapter to `out`.

    See `run_trainer`.
    """

    def make_trainer(arguments: TrainingArguments, callbacks: list[TrainerCallback]) -> StudentTrainer:
        trainer = AlignmentTrainer(
            student,
            record,
            options,
            train,
            validation,
            args=arguments,
            data_collator=AlignmentCollator.of(student, student.model.attention_rows),
            callbacks=callbacks,
        )
        if options.gradient_checkpointing is not None:
            student.model.checkpoint_gradients(options.gradient_checkpointing)
        return trainer

    return run_trainer(
        student, record, options, make_trainer, out, progress, evaluate=validation is not None, resume=resume
    )


def run_trainer(
    student: Student,
    record: AdapterRecord,
    options: TrainingOptions,
    make_trainer: MakeTrainer,
    out: Path,
    progress: Progress,
    *,
    evaluate: bool,
    resume: bool,
) -> TrainingResult:
    """Train the trainable parameters of `student` and write the adapter to `out`.

    Ctrl-C saves a checkpoint and returns with `interrupted`; `resume` continues from the newest complete checkpoint in
    `out`. Incomplete checkpoints are deleted and reported.

    Raises:
        InputError: `resume` without a checkpoint, or a sample that cannot be read.
        MedalignError: a loss, a gradient or a weight is NaN or infinite, or the disk is full.
    """
    check_reporters(options.report_to)
    checkpoint = last_whole_checkpoint(out) if resume else None
    if resume and checkpoint is None:
        raise InputError(f"{out} has no complete checkpoint to resume from. Start without --resume, with another --out")
    out.mkdir(parents=True, exist_ok=True)
    if Processes.of_environment().writes:
        _remove_unfinished(out, checkpoint, progress)
    if checkpoint is not None and (state := _final_state(checkpoint, options.patience)) is not None:
        return _finish(student, record, options, state, checkpoint)
    arguments = training_arguments(student, options, out, evaluate=evaluate)
    resumed_from = 0 if checkpoint is None else _step_of(checkpoint)
    watcher = Watcher(progress, out / LOG_FILE, resumed_from)
    trainer = make_trainer(arguments, [watcher, *([] if options.patience is None else [KeepBest(options.patience)])])
    trainer.remove_callback(PrinterCallback)
    if arguments.world_size > 1:
        torch.manual_seed(options.seed + arguments.process_index)  # processes have different dropout
    with quiet_transformers(), _on_interrupt(watcher.interrupt), _without_worker_traceback(), room_for(out):
        outcome = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.check_steps()
    trainer.stop_workers()
    best = _best_of(trainer.state) if options.patience is not None else None
    if best is not None:
        trainer.accelerator.wait_for_everyone()
        load_trained(student.model, out / str(best["checkpoint"]))
    values = trained_values(student.model)
    if not watcher.interrupted:
        check_trained(values, out)
        if arguments.should_save:
            with room_for(out):
                save_adapter(student.model, record, out, values)
    return TrainingResult(
        steps=trainer.state.global_step,
        planned_steps=trainer.state.max_steps,
        interrupted=watcher.interrupted,
        seconds=float(outcome.metrics.get("train_runtime", 0.0)),
        final=_last_values(trainer.state.log_history),
        best=best,
        resumed_from=resumed_from,
    )


def check_reporters(report_to: Sequence[str]) -> None:
    """Check that the packages for `training.report_to` are installed.

    Raises:
        SettingsError: one is not installed.
    """
    for name in report_to:
        if importlib.util.find_spec(REPORTERS[name]) is None:
            raise SettingsError(
                f"training.report_to names {name}, but the package {REPORTERS[name]!r} is not installed. Run "
                f"`pip install {REPORTERS[name]}`, or remove {name} from report_to ({LOG_FILE} is always written)"
            )


def _best_of(state: TrainerState) -> dict[str, object] | None:
    """The best evaluation and the name of its checkpoint; None if there was no evaluation."""
    if not state.best_global_step:
        return None
    name = f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
    return {"step": state.best_global_step, "eval_loss": state.best_metric, "checkpoint": name}


def _final_state(checkpoint: Path, patience: int | None) -> TrainerState | None:
    """Read the state of a run that ended with this checkpoint; None if there are steps left to train."""
    file = checkpoint / STATE_FILE
    with reading_checkpoint(file):
        state = TrainerState.load_from_json(str(file))
        for name in ("global_step", "max_steps"):
            if type(getattr(state, name)) is not int:
                raise ValueError(f"{name} is {getattr(state, name)!r}")
    ended = state.global_step >= state.max_steps
    if patience is not None:
        losses = [logs["eval_loss"] for logs in state.log_history if "eval_loss" in logs]
        ended = ended or is_out_of_patience(losses, patience)
    return state if ended else None


def _finish(
    student: Student, record: AdapterRecord, options: TrainingOptions, state: TrainerState, checkpoint: Path
) -> TrainingResult:
    """Write the adapter of a run that was killed between its last checkpoint and its end, without training."""
    out = checkpoint.parent
    best = _best_of(state) if options.patience is not None else None
    load_trained(student.model, checkpoint if best is None else out / str(best["checkpoint"]))
    if Processes.of_environment().writes:
        with room_for(out):
            save_adapter(student.model, record, out)
    return TrainingResult(
        steps=state.global_step,
        planned_steps=state.max_steps,
        interrupted=False,
        seconds=0.0,
        final=_last_values(state.log_history),
        best=best,
        resumed_from=state.global_step,
    )


def _remove_unfinished(out: Path, checkpoint: Path | None, progress: Progress) -> None:
    """Delete and report what an interrupted run wrote after the checkpoint that it continues from."""
    removed = remove_cut_off(out)
    if removed:
        then = "starting from the beginning" if checkpoint is None else f"continuing from {checkpoint.name}"
        progress.note(f"removed incomplete {', '.join(removed)}; {then}")
    if checkpoint is not None:
        _truncate_log(out / LOG_FILE, _step_of(checkpoint))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _truncate_log(log_file: Path, step: int) -> None:
    """Remove the log lines after the checkpoint that a run continues from."""
    if not log_file.is_file():
        return
    lines = log_file.read_bytes().split(b"\n")[:-1]  # the part after the last newline is incomplete
    then = f"Delete it to resume; the log then starts after step {step}"
    logged = [parse_record(_LOG_LINE, line, log_file, f"line {number}", then) for number, line in enumerate(lines, 1)]
    kept = [line + b"\n" for line, values in zip(lines, logged, strict=True) if values.step <= step]
    write_whole(log_file, b"".join(kept).decode())


def training_arguments(student: Student, options: TrainingOptions, out: Path, *, evaluate: bool) -> TrainingArguments:
    """Create transformers' TrainingArguments for a run in `out`."""
    every_epoch = "epoch"
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=options.num_train_epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.per_device_train_batch_size,
        per_device_eval_batch_size=options.per_device_train_batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        learning_rate=options.learning_rates.language_model,
        max_grad_norm=0.0 if options.max_grad_norm is None else options.max_grad_norm,  # 0 disables clipping
        eval_strategy=("steps" if options.eval_steps else every_epoch) if evaluate else "no",
        eval_steps=options.eval_steps,
        save_strategy="steps" if options.save_steps else every_epoch,
        save_steps=options.save_steps or 500,
        save_total_limit=2 if options.patience is None else 3,  # the best checkpoint may be an old one
        metric_for_best_model=None if options.patience is None else "eval_loss",
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,  # it waits for the device in every batch, and hides non-finite losses
        fp16=options.precision == "float16",  # enables loss scaling; precision.py controls autocast
        dataloader_num_workers=options.dataloader_num_workers,
        dataloader_persistent_workers=options.dataloader_num_workers > 0,
        dataloader_pin_memory=options.device.startswith("cuda"),
        accelerator_config={"non_blocking": options.device.startswith("cuda")},
        use_cpu=options.device == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(options.report_to) or "none",
        disable_tqdm=True,
        seed=options.seed,
        ddp_backend="gloo" if options.device == "cpu" and Processes.of_environment().number > 1 else None,
        ddp_find_unused_parameters=False,
        **sharding_arguments(student.model, options.sharding),
    )
    return own_precision(one_device(arguments))


@contextmanager
def _on_interrupt(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT with `handler`; has no effect outside the main thread, where Python allows no handlers."""
    try:
        previous = signal.signal(signal.SIGINT, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _without_worker_traceback() -> Iterator[None]:
    """Keep the message of a MedalignError that was raised in a DataLoader worker.

    torch raises the worker's exception class again, with the worker's full traceback as its message.
    """
    try:
        yield
    except MedalignError as error:
        kind = type(error)
        _, worker, message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")
        if not worker:
            raise
        raise kind(message.rstrip()) from error


def _last_values(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The last value of every loss term; `loss` and `train_loss` are sums and means of the Trainer."""
    last: dict[str, float] = {}
    for logs in history:
        last.update({name: float(value) for name, value in logs.items() if _TERM.fullmatch(name)})
    return last
