"""The patch grid of a model's square input. Importing this module does not load torch."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """A grid of patches on the model's square input, row-major from the top left."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a patch grid must have positive sides, not {self.rows}x{self.columns}")

    @classmethod
    def parse(cls, text: str) -> "PatchGrid":
        """Parse a grid such as `24x24` (rows x columns).

        Raises:
            ValueError: the text is not two positive integers separated by an `x`.
        """
        rows, _, columns = text.partition("x")
        if not all(re.fullmatch(r"[0-9]{1,6}", side) for side in (rows, columns)):
            raise ValueError(f"a grid must be ROWSxCOLUMNS, for example 24x24, not {text!r}")
        return cls(int(rows), int(columns))

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"
