"""Do units of work, alone or with other processes that share the folder.

Every process goes through all units, its own part first, and takes those that are ready and that no other process is
working on. Which process does a unit changes no result, a killed process blocks nothing, and no unit is done twice.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

import torch

from ....errors import MedalignError
from ....plain_text import counted
from ....progress import Labeled, Progress
from ....teacher_cache.workers.task import Task
from ...evaluation.batches.environment import code_versions
from .unit_folder import UnitRecord, check_files, digest_files, read_unit, try_lock
from .unit_plan import all_units
from .work_units import Unit

WARNING: Final = "warning:"
"""Start of notes that are shown; the others are about steps of single runs."""
_LOOK_AGAIN: Final = 0.5
"""Seconds between looks at units that other processes are working on."""


class UnitQueue:
    """The units of a study's folder."""

    def __init__(self, out: Path, task: Task | None, check: Callable[[], None], progress: Progress) -> None:
        """`check` is called before every unit, and raises an error if the study was changed."""
        self._out, self._task, self._check = out, task, check
        self._progress = _WarningsOnce(progress)
        self._finished: dict[str, UnitRecord] = {}
        self._unchanged: set[str] = set()
        self.done = 0
        """Number of units that this process did."""

    def finished(self, unit: Unit) -> UnitRecord | None:
        """The record of a unit; None if it is unfinished."""
        found = self._finished.get(unit.digest) or read_unit(unit.folder(self._out), unit.digest)
        if found is not None:
            self._finished[unit.digest] = found
        return found

    def require_unchanged(self, unit: Unit) -> None:
        """Check, once, that the files of a finished unit are those that it wrote.

        Raises:
            InputError: They are not.
        """
        if unit.digest not in self._unchanged and (record := self.finished(unit)) is not None:
            check_files(unit.folder(self._out), record)
            self._unchanged.add(unit.digest)

    def unfinished(self, units: Sequence[Unit]) -> list[Unit]:
        """Units, with those that they need, that are not finished."""
        return [unit for unit in all_units(units) if self.finished(unit) is None]

    def do(self, units: Sequence[Unit], stage: str) -> None:
        """Finish units and all that they need; returns when all are finished, wherever they were done.

        `stage` is what they are, for notes: "the trials".

        Raises:
            MedalignError: A unit failed; the message names it. Finished units are kept.
            KeyboardInterrupt: The user stopped it.
        """
        every = all_units(units)
        pending = self.unfinished(self._own_first(units))
        if reused := len(every) - len(pending):
            self._progress.tell(f"{reused} of {counted(len(every), 'unit')} of {stage} already finished")
        while pending:
            moved = [unit for unit in pending if self._advance(unit, pending, stage)]
            pending = [unit for unit in pending if self.finished(unit) is None]
            if pending and not moved:
                sleep(_LOOK_AGAIN)

    def _own_first(self, units: Sequence[Unit]) -> list[Unit]:
        if self._task is None:
            return list(units)
        own = [units[number] for number in self._task.shards(len(units))]
        return [*own, *(unit for unit in units if unit not in own)]

    def _advance(self, unit: Unit, pending: Sequence[Unit], stage: str) -> bool:
        """Do a unit if it is ready and free; return whether it is finished now."""
        if self.finished(unit) is not None:
            return True
        if any(self.finished(need) is None for need in unit.needs):
            return False
        self._check()
        with try_lock(unit.folder(self._out)) as is_mine:
            if not is_mine:
                return False
            if self.finished(unit) is None:
                for need in all_units(unit.needs):
                    self.require_unchanged(need)
                self._do(unit)
                seconds = self._finished[unit.digest].seconds
                left = sum(1 for other in pending if self.finished(other) is None)
                self._progress.tell(
                    f"{unit.KIND}: {unit.label} ({seconds:.1f} s, {counted(left, 'unit')} of {stage} left)"
                )
        return True

    def _do(self, unit: Unit) -> None:
        started = perf_counter()
        try:
            result = unit.do(self._out, Labeled(self._progress, unit.label))
        except MedalignError as error:
            raise type(error)(f"{unit.KIND} of {unit.label}: {error}") from error
        _free_memory()
        record = UnitRecord(
            kind=unit.KIND,
            label=unit.label,
            digest=unit.digest,
            identity=dict(unit.identity),
            seconds=perf_counter() - started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=dict(code_versions()),
            files=digest_files(unit.run_folder(self._out)),
            result=result,
        )
        record.write(unit.folder(self._out))
        self._finished[unit.digest] = record
        self._unchanged.add(unit.digest)
        self.done += 1


@contextmanager
def quick_collection() -> Iterator[None]:
    """Leave what is loaded now out of garbage collection while the block runs.

    Every unit collects garbage several times; with all modules in it, that takes a tenth of the time of a small study.
    What the caller had left out before stays out.
    """
    frozen_by_caller = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_by_caller:
            gc.unfreeze()


def _free_memory() -> None:
    """Free the student of a unit before the next one is loaded; its trainer refers to itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _WarningsOnce:
    """Forwards bars, and of the notes only warnings, each once: hundreds of trainings have the same."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: set[str] = set()

    def start(self, label: str, total: int | None) -> None:
        self._progress.start(label, total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)

    def note(self, text: str) -> None:
        if text.startswith(WARNING) and text not in self._seen:
            self._seen.add(text)
            self._progress.note(text)

    def tell(self, text: str) -> None:
        """A note of the study itself."""
        self._progress.note(text)
