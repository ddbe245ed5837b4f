"""The unfinished part of an evaluation: what it is (`run.json`), and its answers so far (`answers.jsonl`).

A batch of answers is appended in one write and synced, so a killed evaluation loses the batch it was in and nothing
else. A torn last line, or a batch that is only partly there, is dropped when the run goes on.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from .. import atomic
from ..atomic import is_temporary
from ..errors import InputError
from ..student.file_errors import is_file, read_object, reading, writing

RUN_FILE = "run.json"
LOG_FILE = "answers.jsonl"
EVALUATION = "an evaluation"
METADATA_KEY = "medalign"
"""Entry of a result table's Parquet metadata that says what it is."""


UNKNOWN_FINISH = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedAnswer:
    """One prediction, its share of its batch's time, and the language model's forward passes that it took."""

    question_id: str
    prediction: str
    seconds: float
    forwards: int
    finish: str = UNKNOWN_FINISH
    """`end`, `length` or `empty` (docs/metrics.md); a log of an earlier version does not say."""


def check_free(out: Path, *, resume: bool, what: str = EVALUATION) -> None:
    """Check that a run could claim a folder, as far as that can be told without knowing the run.

    Raises:
        InputError: the folder is in use and `resume` is off, or it does not hold `what` a run makes.
    """
    if is_file(out / RUN_FILE):
        if not resume:
            raise InputError(f"{out} holds {what} already: give another --out, or --resume to go on with it")
    elif out.exists() and (not out.is_dir() or any(not is_temporary(path.name) for path in out.iterdir())):
        raise InputError(f"{out} exists and is not {what}: give another --out")


def open_run(out: Path, run: dict[str, Any], *, resume: bool, what: str = EVALUATION) -> None:
    """Claim a folder for a run, or find that it holds this very run.

    Raises:
        InputError: the folder is in use and `resume` is off, or it holds another run (what differs is listed).
    """
    check_free(out, resume=resume, what=what)
    path = out / RUN_FILE
    if not is_file(path):
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(run, indent=2) + "\n")
        return
    recorded, now = read_object(path), json.loads(json.dumps(run))
    differing = [
        f"  - {key}: there {recorded.get(key)!r}, now {now.get(key)!r}"
        for key in sorted({*recorded, *now})
        if recorded.get(key) != now.get(key)
    ]
    if differing:
        listed = "\n".join(differing)
        raise InputError(
            f"{out} holds {what} of something else, which cannot be gone on with:\n{listed}\nGive another --out."
        )


class AnswerLog:
    """Answers of a run in the order of its questions, appended batch by batch."""

    def __init__(self, out: Path, question_ids: Sequence[str], batch_size: int) -> None:
        """Read what is there and cut it to whole batches.

        Raises:
            InputError: the log is of other questions, or a line of it is damaged.
        """
        self._path = out / LOG_FILE
        found = self._read()
        if [answer.question_id for answer in found] != list(question_ids[: len(found)]):
            raise InputError(f"{self._path} answers other questions than this run asks: give another --out")
        whole = len(found) if len(found) == len(question_ids) else len(found) - len(found) % batch_size
        self.answers = found[:whole]
        write_whole(self._path, "".join(map(_line, self.answers)))

    def append(self, answers: Sequence[LoggedAnswer]) -> None:
        """Add one batch, on disk when this returns.

        Raises:
            MedalignError: it cannot be written; what was written before stays.
        """
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, answers)))
            file.flush()
            os.fsync(file.fileno())
        self.answers += answers

    def remove(self) -> None:
        """Drop the log once its answers are in predictions.parquet."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> list[LoggedAnswer]:
        if not self._path.is_file():
            return []
        with reading(self._path):
            lines = self._path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        return [self._parse(number, line) for number, line in enumerate(lines, start=1)]

    def _parse(self, number: int, line: bytes) -> LoggedAnswer:
        with reading(self._path, f"line {number}"):
            return LoggedAnswer(**json.loads(line))


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one step: readers see the old one or the new one.

    Raises:
        MedalignError: it cannot be written, for example because the disk is full.
    """
    with writing(path):
        atomic.write_whole(path, text)


def write_table(path: Path, table: pl.DataFrame, header: dict[str, Any]) -> None:
    """Write a Parquet file in one step, `header` as JSON in its metadata.

    Raises:
        MedalignError: it cannot be written, for example because the disk is full.
    """
    with writing(path):
        atomic.remove_leftovers(path)
        with atomic.AtomicFile(path) as file:
            try:
                table.write_parquet(file, metadata={METADATA_KEY: json.dumps(header)})
            except pl.exceptions.ComputeError as error:  # what polars makes of an error of the file system
                raise OSError(str(error)) from error


def _line(answer: LoggedAnswer) -> str:
    return json.dumps(asdict(answer)) + "\n"
