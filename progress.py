"""How long-running work reports its progress.

Every package may import this module. `cli.py` passes an implementation that draws bars; tests pass `Silent`.
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
        """Print one line that stays on the screen."""


class Silent:
    """Progress that is not shown."""

    def start(self, label: str, total: int | None) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Labeled:
    """Forwards all calls, with a name before the label of each stage, so that repeated stages differ."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def start(self, label: str, total: int | None) -> None:
        self._progress.start(f"{self._name}: {label}", total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)

    def note(self, text: str) -> None:
        self._progress.note(text)


class Counting:
    """Forwards all calls, and collects the numbers from `add_count` for a summary."""

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
    """Add to a number in the summary; no-op unless `progress` is a `Counting`."""
    if isinstance(progress, Counting):
        progress.counts[name] += number
