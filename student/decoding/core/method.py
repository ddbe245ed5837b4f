"""What a decoding method is: a name, its settings, where it comes from, and a function from a run to answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .batch_run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    name: str
    """As in `--decode NAME`."""
    formula: str
    """What it does, in one line."""
    paper: str
    """Where it was published."""
    settings: type[Any]
    """A frozen dataclass; each field is annotated with pydantic's Field: its range, and a description. A method
    `problems()` of it may tell what is wrong with the values together."""
    answer: Callable[[Run, Any], Tensor]
    """Token ids [B, T] of the answers to a run's prompts, up to `run.max_new_tokens`; whatever follows an
    end-of-sequence token is not read."""
    needs_image: bool = False
    """Whether every question must come with an image."""
