"""An evaluation in progress: its description (`run.json`), and its answers so far (`answers*.jsonl`).

A batch of answers is appended in one write and synced, so a killed evaluation loses only the current batch. An
incomplete last line or batch is dropped when the run is resumed. With several processes, each appends to its own file,
and all files together are the answers so far.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, StrictStr, TypeAdapter

from ... import atomic
from ...atomic import is_temporary
from ...errors import InputError
from ...saved_records import parse_record
from ...student.file_errors import is_file, reading, writing
from ...teacher_cache.store.file_names import LOCK_FILE
from ..data import saved_tables
from .run_differences import differences, differing_keys, method_changed
from .run_record import check_file_conditions, read_run

RUN_FILE = "run.json"
LOG_FILE = "answers.jsonl"
LOG_FILES = "answers*.jsonl"
"""Pattern of the log files of a run: one per process."""
CONDITIONS = "conditions"
"""Key in the first line of a log file."""
EVALUATION = "an evaluation"
UNKNOWN_FINISH: Final = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedAnswer:
    """One prediction, its share of its batch's time, and its number of forward passes of the language model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    question_id: StrictStr
    prediction: StrictStr
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
    forwards: Annotated[int, Field(ge=0, lt=2**53, strict=True)]
    finish: Literal["end", "length", "empty", "unknown"] = UNKNOWN_FINISH
    """How the answer stopped (docs/metrics.md); `unknown` in logs of earlier versions."""


class _LogHeader(BaseModel):
    """The first line of a log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditions: dict[str, Any]


ANSWER: Final = TypeAdapter(LoggedAnswer)
"""Schema of a line of a log, or a row of a result table."""
_HEADER: Final = TypeAdapter(_LogHeader)
_REMOVE_HEADER: Final = "Remove line 1, then run the command again with --resume"
_REMOVE: Final = "Remove that line, then run the command again with --resume; its batch is answered again"


def check_free(out: Path, *, resume: bool, what: str = EVALUATION) -> None:
    """Check that a run could claim a folder, without comparing the runs.

    Raises:
        InputError: The folder is in use and `resume` is off, or does not contain `what`.
    """
    if is_file(out / RUN_FILE):
        if not resume:
            raise InputError(f"{out} already contains {what}: pass another --out, or --resume to continue it")
    elif (out.exists() or out.is_symlink()) and (
        not out.is_dir() or any(not is_temporary(path.name) for path in out.iterdir())
    ):
        raise InputError(f"{out} exists and is not {what}: pass another --out")


def check_begun(out: Path, *, what: str = EVALUATION) -> None:
    """Check that there is something to finish.

    Raises:
        InputError: No run was started in the folder.
    """
    if not is_file(out / RUN_FILE):
        raise InputError(
            f"{out} has no {what.removeprefix('an ').removeprefix('a ')}: run this command with --task I/N first, "
            "once for each I from 0 to N - 1"
        )


def open_run(
    out: Path, run: dict[str, Any], *, resume: bool, what: str = EVALUATION, adopt: Sequence[str] = ()
) -> tuple[dict[str, Any], bool]:
    """Claim a folder for a run, or find that it already contains this run. Concurrent claims: one succeeds.

    Args:
        out: The folder.
        run: Everything that determines the results.
        resume: Whether the folder may already contain this run.
        what: The kind of run, for messages.
        adopt: Keys whose values are taken from the existing run.

    Returns:
        The run, with the adopted values, and whether this call claimed the folder.

    Raises:
        InputError: The folder is in use and `resume` is off, or contains another run (differences are listed).
    """
    check_free(out, resume=resume, what=what)
    path = out / RUN_FILE
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    if not is_file(path) and claim_file(path, json.dumps(run, indent=2) + "\n"):
        return run, True
    check_free(out, resume=resume, what=what)  # another process may have been faster
    recorded = read_run(path)
    run = {key: value for key, value in run.items() if key not in adopt} | {
        key: recorded[key] for key in adopt if key in recorded
    }
    if listed := differences(recorded, now := json.loads(json.dumps(run))):
        lines = "".join(f"\n  - {line}" for line in listed)
        then = _remedy(listed, differing_keys(recorded, now))
        raise InputError(f"{out} contains {what} with different settings; it cannot be resumed:{lines}\n{then}")
    return run, False


def _remedy(listed: Sequence[str], keys: Sequence[str]) -> str:
    if keys == ["threads"]:
        return "Omit --threads to use the recorded value, or pass another --out."
    if method_changed(listed):
        file = "the method's file" if len(listed) == 1 else "the method's file and the recorded values"
        return f"Run the command again with another --out, or restore {file}."
    return "Run the command again with another --out, or with the recorded values."


@contextmanager
def undone_claim(out: Path, *, is_new: bool) -> Iterator[None]:
    """Release a newly claimed folder if the block fails before there is any result."""
    try:
        yield
    except BaseException:
        kept = {RUN_FILE, LOCK_FILE}
        if is_new and out.is_dir() and not [path for path in out.iterdir() if path.name not in kept]:
            (out / RUN_FILE).unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()
        raise


def claim_file(path: Path, text: str) -> bool:
    """Write a file atomically unless it exists; return whether it was written. Concurrent calls: one writes.

    Raises:
        MedalignError: The file cannot be written, for example because the disk is full.
    """
    with writing(path):
        try:
            atomic.write_new(path, text.encode())
        except FileExistsError:
            return False
    return True


class AnswerLog:
    """Answers of a run, appended batch by batch; each process has its own file.

    The first line of a file has the conditions of its answers; files of earlier versions do not have it.
    """

    def __init__(self, out: Path, question_ids: Sequence[str], batch_size: int, writer: str = "") -> None:
        """Read all existing files and keep their complete batches.

        Args:
            out: The folder of the run.
            question_ids: The questions in order.
            batch_size: Questions per batch.
            writer: Suffix of this process's file; see `writer_name`.

        Raises:
            InputError: A file has other questions, a line is damaged, or two files disagree.
        """
        self._out, self._ids, self._size = out, list(question_ids), batch_size
        self._own = out / f"{LOG_FILE.removesuffix('.jsonl')}{writer}.jsonl"
        self._is_open = False
        self._batches: dict[int, list[LoggedAnswer]] = {}
        self.conditions: dict[Path, dict[str, Any]] = {}
        """The headers of the files."""
        for path in self.files():
            for batch, answers in self._whole(path, self._read(path)).items():
                known = self._batches.setdefault(batch, answers)
                if [answer.prediction for answer in known] != [answer.prediction for answer in answers]:
                    raise InputError(
                        f"{path} and another {LOG_FILE} in {out} have different answers to question "
                        f"{answers[0].question_id} and those after it: remove one of them, then run the command again "
                        "with --resume"
                    )

    def files(self) -> list[Path]:
        """The existing files."""
        return sorted(self._out.glob(LOG_FILES))

    @property
    def tasks(self) -> set[int]:
        """The numbers of tasks (N of `--task I/N`) in the names of the files."""
        found = (re.search(r"-of-([0-9]+)\b", path.name) for path in self.files())
        return {int(match[1]) for match in found if match}

    @property
    def missing(self) -> list[int]:
        """Batches without answers."""
        batches = -(-len(self._ids) // self._size)
        return [batch for batch in range(batches) if batch not in self._batches]

    @property
    def answers(self) -> list[LoggedAnswer]:
        """All answers so far, in the order of the questions."""
        return [answer for batch in sorted(self._batches) for answer in self._batches[batch]]

    def append(self, batch: int, answers: Sequence[LoggedAnswer], conditions: Mapping[str, Any] | None = None) -> None:
        """Append one batch; it is on disk when this returns.

        Raises:
            MedalignError: It cannot be written; earlier batches are kept.
        """
        if not self._is_open:
            self._open(conditions or {})
        with writing(self._own):
            atomic.append(self._own, "".join(map(_line, answers)))
        self._batches[batch] = list(answers)

    def remove(self) -> None:
        """Delete the files after their answers are in predictions.parquet."""
        for path in self.files():
            path.unlink(missing_ok=True)

    def _open(self, conditions: Mapping[str, Any]) -> None:
        """Start this process's file, or truncate it to its complete batches.

        If it was written under other conditions (a task that continues on another machine), start another file.
        """
        own, known = self._own, self.conditions.get(self._own)
        if known and conditions and known != json.loads(json.dumps(conditions)):
            taken = {path.name for path in self.files()}
            names = (f"{own.stem}.{number}.jsonl" for number in count(2))
            self._own = own.with_name(next(name for name in names if name not in taken))
        whole = self._whole(self._own, self._read(self._own)) if self._own.is_file() else {}
        header = {CONDITIONS: dict(self.conditions.get(self._own) or conditions)}
        lines = [_line(answer) for answers in whole.values() for answer in answers]
        write_whole(self._own, "".join([json.dumps(header) + "\n", *lines]))
        self._is_open = True

    def _whole(self, path: Path, found: Sequence[LoggedAnswer]) -> dict[int, list[LoggedAnswer]]:
        """The answers of one file by batch, without incomplete batches."""
        places = {question: place for place, question in enumerate(self._ids)}
        by_batch: dict[int, list[LoggedAnswer]] = defaultdict(list)
        for answer in found:
            if answer.question_id not in places:
                raise InputError(f"{path} has answers to questions other than this run's: pass another --out")
            by_batch[places[answer.question_id] // self._size].append(answer)
        return {batch: answers for batch, answers in by_batch.items() if self._is_whole(batch, answers)}

    def _is_whole(self, batch: int, answers: Sequence[LoggedAnswer]) -> bool:
        first = batch * self._size
        return [answer.question_id for answer in answers] == self._ids[first : first + self._size]

    def _read(self, path: Path) -> list[LoggedAnswer]:
        with reading(path):
            lines = path.read_bytes().split(b"\n")[:-1]  # anything after the last newline is incomplete
        first = 1
        if lines and lines[0].startswith(f'{{"{CONDITIONS}"'.encode()):
            header = parse_record(_HEADER, lines.pop(0), path, "line 1", _REMOVE_HEADER)
            self.conditions[path] = check_file_conditions(header.conditions, path, _REMOVE_HEADER)
            first = 2
        return [
            parse_record(ANSWER, line, path, f"line {number}", _REMOVE)
            for number, line in enumerate(lines, start=first)
        ]


def writer_name(task: str | None, rank: int) -> str:
    """The suffix of a process's file: its task, and its rank under torchrun."""
    parts = ["" if task is None else f"-{task.replace('/', '-of-')}", f".rank-{rank}" if rank else ""]
    return "".join(parts)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old file or the new one.

    Raises:
        MedalignError: The file cannot be written, for example because the disk is full.
    """
    with writing(path):
        atomic.write_whole(path, text)


def write_table(path: Path, table: pl.DataFrame, header: dict[str, Any] | None = None) -> None:
    """Write a Parquet file atomically, with `header` as JSON in its metadata.

    Raises:
        MedalignError: The file cannot be written, for example because the disk is full.
    """
    with writing(path):
        saved_tables.write(path, table, header)


def _line(answer: LoggedAnswer) -> str:
    return json.dumps(asdict(answer)) + "\n"
