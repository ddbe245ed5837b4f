"""A figure: the table that it shows, and the words around it. How it is drawn depends on its kind."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure of a report. Two figures with equal fields have equal pictures."""

    name: str
    """Name of its files without suffix: lower-case letters, digits and single hyphens."""
    kind: str
    """How it is drawn: a key of `drawing.KINDS`."""
    title: str
    caption: str
    """One or two sentences below the picture: what it shows, and the number that judges it."""
    alt: str
    """The finding in words, for readers who cannot see the picture."""
    table: pl.DataFrame
    """Everything that is drawn."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Axis labels and other settings of its kind; values of JSON's types."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a figure's name: use lower-case letters, digits and hyphens")
        if not self.alt.strip():
            raise ValueError(f"figure {self.name!r} has no alternative text")


def figure_name(text: str) -> str:
    """A name for a figure's files from any text, such as a layer or the name of an adapter."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "figure"


def in_order(values: pl.Series) -> list[Any]:
    """The distinct values of a column, in order of appearance."""
    return values.unique(maintain_order=True).to_list()
