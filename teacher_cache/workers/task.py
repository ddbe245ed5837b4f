"""`--task I/N`: one of several runs that divide the work among them."""

import re
from dataclasses import dataclass

from ...errors import SettingsError


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One of `count` runs that divide the shards of a store, or the batches of an evaluation, among them."""

    number: int
    """0 <= number < count."""
    count: int

    def shards(self, total: int) -> range:
        return range(self.number, total, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_task(text: str | None) -> Task | None:
    """Parse a task such as `0/4`, the first of four.

    Raises:
        SettingsError: the text is not a task.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise SettingsError(f"--task must be I/N with 0 <= I < N, such as 0/4 for the first of four, not {text!r}")
    return Task(number=int(match[1]), count=int(match[2]))
