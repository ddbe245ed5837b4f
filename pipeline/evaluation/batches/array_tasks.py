"""Tasks of a Slurm array: what one of them reports, and whether all of them are there."""

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
    """What a task has done, or a process of torchrun that is not the first."""

    out: Path
    task: Task | None
    batches: int
    """Of the whole run."""
    done: int
    """By all tasks so far."""

    def summary(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "task": str(self.task),
            "batches_done": self.done,
            "batches": self.batches,
        }


def part_report(out: Path, task: Task, missing: int, batches: int, progress: Progress) -> PartReport:
    """Report a finished task, and say what is next."""
    if missing:
        progress.note(f"task {task} is done; {missing} of {batches} batches are missing, of other tasks")
    else:
        progress.note(
            f"task {task} is done, and all {batches} batches are there: run this command with --finish in place of "
            f"--task {task}, without --threads, --workers and --engine"
        )
    return PartReport(out=out, task=task, batches=batches, done=batches - missing)


def check_whole(out: Path, missing: Sequence[int], batches: int, tasks: Iterable[int]) -> None:
    """Check that every batch is there.

    Args:
        out: the run's folder.
        missing: numbers of the batches that are not.
        batches: of the whole run.
        tasks: numbers of tasks that runs in this folder were divided into.

    Raises:
        InputError: batches are missing; the message names the tasks to run.
    """
    if not missing:
        return
    counts = sorted(set(tasks))
    start = f"{out} is unfinished: {len(missing)} of {batches} batches are missing"
    if len(counts) != 1:
        divided = f" (its tasks were divided by {', '.join(map(str, counts))})" if counts else ""
        raise InputError(f"{start}{divided}: run this command with --resume in place of --finish to do them here")
    (count,) = counts
    lacking = sorted(Counter(number % count for number in missing).items())
    listed = ", ".join(f"{number}/{count} ({left} batches)" for number, left in lacking[:_SHOWN])
    more = f" and {len(lacking) - _SHOWN} other tasks" if len(lacking) > _SHOWN else ""
    raise InputError(
        f"{start}, of task {listed}{more}: run this command with --task {lacking[0][0]}/{count} in place of --finish"
        f"{', and so on for the others' if len(lacking) > 1 else ''}, then with --finish again"
    )
