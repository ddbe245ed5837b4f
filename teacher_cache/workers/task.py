"""`--task I/N`: one of several runs that divide a piece of work between them."""

import re
from dataclasses import dataclass

from ...errors import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One of `count` runs that divide the shards of a store, or the batches of an evaluation, between them."""

    number: int
    """0 <= number < count."""
    count: int

    def shards(self, total: int) -> range:
        return range(self.number, total, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_task(text: str | None) -> Task | None:
    """Read `0/4`, the first of four.

    Raises:
        SettingsError: it is no task.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not found or int(found[1]) >= int(found[2]):
        raise SettingsError(f"--task is I/N with 0 <= I < N, such as 0/4 for the first of four, not {text!r}")
    return Task(number=int(found[1]), count=int(found[2]))
