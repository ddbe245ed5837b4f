"""Definition of a decoding method: name, settings, reference, and a function from a run to answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .batch_run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    name: str
    """Name in `--decode NAME`."""
    formula: str
    """What the method computes, in one line."""
    paper: str
    """Publication."""
    settings: type[Any]
    """A frozen dataclass; each field has pydantic's Field with its range and a description. Its optional method
    `problems()` returns a list of invalid combinations of values."""
    answer: Callable[[Run, Any], Tensor]
    """Returns token ids [B, T] of the answers to a run's prompts, up to `run.max_new_tokens`; tokens after an
    end-of-sequence token are ignored."""
    needs_image: bool = False
    """Whether every question must have an image."""
    needs_pixels: bool = False
    """Whether it reads the images' pixels, which a student that projects a teacher's features does not have."""
