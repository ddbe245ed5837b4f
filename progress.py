"""How long work tells what it is doing, without knowing who listens.

A leaf that every room may import; `cli.py` passes an implementation that draws bars, tests pass `Silent`.
"""

from collections import Counter
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """One running stage at a time; starting the next one ends it."""

    def start(self, label: str, total: int | None) -> None:
        """Begin a stage of `total` steps (`None`: unknown)."""

    def advance(self, steps: int = 1) -> None:
        """Count finished steps of the current stage."""

    def note(self, text: str) -> None:
        """Say one line that stays on the screen."""


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total: int | None) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Counting:
    """Passes everything on, and keeps what `add_count` was given, for a summary."""

    def __init__(self, progress: Progress) -> None:
        self.counts: Counter[str] = Counter()
        self._progress = progress

    def start(self, label: str, total: int | None) -> None:
        self._progress.start(label, total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)

    def note(self, text: str) -> None:
        self._progress.note(text)


def add_count(progress: Progress, name: str, number: int) -> None:
    """Add to a number of the summary, where there will be one."""
    if isinstance(progress, Counting):
        progress.counts[name] += number
