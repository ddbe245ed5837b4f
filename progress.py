"""How long work tells what it is doing, without knowing who listens.

A leaf that every room may import; `cli.py` passes an implementation that draws bars, tests pass `Silent`.
"""

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
