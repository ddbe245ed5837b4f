"""Tasks of a Slurm array: the report of one task, and the check that all are done."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....progress import Progress
from ....teacher_cache.workers.task import Task

_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """The report of a task, or of a process of torchrun other than the first."""

    out: Path
    task: Task | None
    batches: int
    """Number of batches of the whole run."""
    done: int
    """Number of batches done by all tasks so far."""

    def summary(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "task": str(self.task),
            "batches_done": self.done,
            "batches": self.batches,
        }


def part_report(out: Path, task: Task, missing: int, batches: int, progress: Progress) -> PartReport:
    """Report a finished task, and note the next step."""
    if missing:
        progress.note(f"task {task} is done; {missing} of {batches} batches of other tasks are missing")
    else:
        progress.note(
            f"task {task} is done, and all {batches} batches are complete: run this command with --finish instead of "
            f"--task {task}, without --threads, --workers and --engine"
        )
    return PartReport(out=out, task=task, batches=batches, done=batches - missing)


def check_whole(out: Path, missing: Sequence[int], batches: int, tasks: Iterable[int]) -> None:
    """Check that every batch is complete.

    Args:
        out: The folder of the run.
        missing: Numbers of the missing batches.
        batches: Number of batches of the whole run.
        tasks: Numbers of tasks N that were used in this folder.

    Raises:
        InputError: Batches are missing; the message lists the tasks to run.
    """
    if not missing:
        return
    counts = sorted(set(tasks))
    start = f"{out} is unfinished: {len(missing)} of {batches} batches are missing"
    if len(counts) != 1:
        divided = f" (its tasks are I/N with N = {', '.join(map(str, counts))})" if counts else ""
        raise InputError(f"{start}{divided}: run this command with --resume instead of --finish to compute them here")
    (count,) = counts
    lacking = sorted(Counter(number % count for number in missing).items())
    listed = ", ".join(f"{number}/{count} ({left} batches)" for number, left in lacking[:_SHOWN])
    more = f" and {len(lacking) - _SHOWN} other tasks" if len(lacking) > _SHOWN else ""
    raise InputError(
        f"{start}, of task {listed}{more}: run this command with --task {lacking[0][0]}/{count} instead of --finish"
        f"{', and so on for the others' if len(lacking) > 1 else ''}, then with --finish again"
    )
