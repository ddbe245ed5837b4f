"""What is measured of a run of `student align`, and the results; inspection/student_changes.py measures it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...choices import Dtype
from ...plain_text import signed_text
from ...progress import Progress
from ..data.manifest import Manifest

Kind = Literal["targets", "anchors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswersMoved:
    """Answers to one question about each of some held-out images, before and after."""

    images: str
    """targets or anchors."""
    questions: int
    changed: float
    """Share of the answers whose text changed."""
    scored: int
    """Questions with a reference that is scored."""
    score_before: float | None = None
    """Mean `strict` score."""
    score_after: float | None = None
    low: float | None = None
    """95 % interval, over images, of the score after minus that before."""
    high: float | None = None

    def sentence(self) -> str:
        """The change in words."""
        text = f"{self.images}: {100 * self.changed:.0f} % of {self.questions} answers changed"
        if self.score_before is None or self.score_after is None:
            return text
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f" (difference {signed_text(self.low, 3)} to {signed_text(self.high, 3)})"
        return f"{text}; score {self.score_before:.3f} before, {self.score_after:.3f} after{interval}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeMoved:
    """Balanced accuracy of a linear probe on images that it was not fitted on, before and after."""

    images: str
    """targets or anchors; trained and held-out ones, because no label was used in training."""
    labels: str
    """regions, organ, modality or answers."""
    stage: str
    """tower or projector."""
    before: float
    after: float
    low: float
    """95 % interval, over images, of the difference."""
    high: float
    floor: float
    """Of the probe without image features."""
    sample: int
    """Number of images."""

    def sentence(self) -> str:
        """The change in words."""
        return (
            f"{self.images}, {self.labels} at the {self.stage}: {self.before:.3f} before, {self.after:.3f} after "
            f"(difference {signed_text(self.low, 3)} to {signed_text(self.high, 3)}; "
            f"without image features {self.floor:.3f})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What changed, or why it was not measured."""

    answers: tuple[AnswersMoved, ...] = ()
    probes: tuple[ProbeMoved, ...] = ()
    seconds: float = 0.0
    failure: str | None = None
    """Why measuring failed; the adapter is complete nevertheless."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredImages:
    """One manifest's images."""

    manifest: Manifest
    used: Collection[str]
    """Hashes of all images of the run."""
    held_out: Collection[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureRequest:
    """Where the students are, and which images they are measured on."""

    before: Path
    """Folder of the student that the run started from: a base, or an adapter."""
    after: Path
    images: Mapping[Kind, MeasuredImages]
    limit: int
    """Largest number of images of each kind; 0: nothing is measured."""
    max_new_tokens: int
    template: str
    dtype: Dtype
    device: str
    seed: int


Measure = Callable[[MeasureRequest, Progress], Measurement]
"""Measures what a run changed."""
