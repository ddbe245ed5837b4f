"""A training run: the loop's arguments, progress, Ctrl-C, resume, and what it leaves behind."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from torch.utils.data import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..errors import InputError, MedalignError
from ..progress import Progress
from .adapters import AdapterRecord, save_adapter
from .aligned import ROTATION_PREFIX, AlignedStudent
from .data import Collator, EncodedSample
from .loading import Student
from .trainer import TERMS, AlignmentTrainer, TrainingOptions

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """How a run ended."""

    steps: int
    planned_steps: int
    interrupted: bool
    seconds: float
    final: dict[str, float]
    """Last logged value of every term, training (`loss_lm`, ...) and validation (`eval_loss_lm`, ...)."""


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Draws progress, keeps log.jsonl, and turns Ctrl-C into a checkpoint at the end of the step."""

    def __init__(self, progress: Progress, log_file: Path) -> None:
        self._progress = progress
        self._log_file = log_file
        self.interrupted = False

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._progress.note("interrupted: saving a checkpoint at the end of this step (again to stop at once)")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress.start("training", state.max_steps)
        self._progress.advance(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress.advance()
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

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
        with self._log_file.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
        shown = {name: value for name, value in logs.items() if "loss" in name and name != "train_loss"}
        if shown:
            terms = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            self._progress.note(f"step {state.global_step:>5}  {terms}")


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
    """Train what is trainable in `student` and write the adapter to `out`.

    Ctrl-C saves a checkpoint and returns with `interrupted`; `resume` goes on from the newest checkpoint in `out`.

    Raises:
        InputError: `resume` without a checkpoint, or a sample that cannot be read.
    """
    checkpoint = get_last_checkpoint(str(out)) if resume and out.is_dir() else None
    if resume and checkpoint is None:
        raise InputError(f"{out} has no checkpoint to resume from: start without --resume")
    out.mkdir(parents=True, exist_ok=True)
    watcher = _Watcher(progress, out / LOG_FILE)
    trainer = AlignmentTrainer(
        student,
        record,
        options,
        args=_training_arguments(options, out, evaluate=validation is not None),
        data_collator=Collator(pad_token_id=student.tokenizer.pad_token_id),
        train_dataset=train,
        eval_dataset=validation,
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    with _on_interrupt(watcher.interrupt), _without_worker_traceback():
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
    if not watcher.interrupted and trainer.args.should_save:
        save_adapter(student.model, record, out)
    return TrainingResult(
        steps=trainer.state.global_step,
        planned_steps=trainer.state.max_steps,
        interrupted=watcher.interrupted,
        seconds=float(outcome.metrics.get("train_runtime", 0.0)),
        final=_last_values(trainer.state.log_history),
    )


def _training_arguments(options: TrainingOptions, out: Path, *, evaluate: bool) -> TrainingArguments:
    every_epoch = "epoch"
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation_steps,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=options.warmup_ratio,
        lr_scheduler_type="cosine",
        eval_strategy=("steps" if options.evaluation_steps else every_epoch) if evaluate else "no",
        eval_steps=options.evaluation_steps,
        save_strategy="steps" if options.save_steps else every_epoch,
        save_steps=options.save_steps or 500,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=options.logging_steps,
        bf16=options.precision == "bfloat16",
        fp16=options.precision == "float16",
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=options.device.startswith("cuda"),
        use_cpu=options.device == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        seed=options.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # not nn.DataParallel, which cannot split images from text
    return arguments


@contextmanager
def _on_interrupt(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle SIGINT by `handler`; outside the main thread Python allows no handlers and nothing changes."""
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
    """An error that users can act on keeps its own message, also where a DataLoader worker met it.

    torch raises the worker's exception class again with the worker's whole traceback as its message.
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
    names = [*TERMS, "eval_loss", *(f"eval_{name}" for name in TERMS)]
    last: dict[str, float] = {}
    for logs in history:
        last.update({name: float(logs[name]) for name in names if name in logs})
    return last


def trainable_parameters(model: AlignedStudent) -> dict[str, int]:
    """Number of trainable values in the rotation and in LoRA."""
    counts = {"rotation": 0, "lora": 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts["rotation" if name.startswith(ROTATION_PREFIX) else "lora"] += parameter.numel()
    return counts
