"""The grid of patches that a model sees on its square input. Importing this loads no torch."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """A grid of patches on the model's square input, row-major from the top left."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a patch grid needs positive sides, not {self.rows}x{self.columns}")

    @classmethod
    def parse(cls, text: str) -> "PatchGrid":
        """Read `24x24` (rows x columns).

        Raises:
            ValueError: the text is not two positive integers around an `x`.
        """
        rows, _, columns = text.partition("x")
        if not all(re.fullmatch(r"[0-9]{1,6}", side) for side in (rows, columns)):
            raise ValueError(f"a grid reads ROWSxCOLUMNS, for example 24x24, not {text!r}")
        return cls(int(rows), int(columns))

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"
