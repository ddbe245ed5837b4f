"""How much of what was readable every stage of a student loses, and which stage loses most in each resample.

S stages, B resamples of the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ....student.inspection.token_capture import PIXELS, PROJECTOR, TEACHER, TOWER

MARGIN = 0.25
"""Share of what is readable beyond the floor above which a loss counts."""
LEAST = 0.1
"""A loss counts only if the lower bound of its interval (`surely`) is above this share; undamaged students
lose about as much (docs/results.md)."""
ERROR = 0.05
"""Probability of any false finding over all stages, one-sided."""
SOURCES = (PIXELS, TEACHER)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLoss:
    """What one stage loses."""

    place: str
    """`tower`, `projector` or `layer N`: the part of the student between the two stages."""
    before: str
    """The stage that it is compared with."""
    best_after: str
    """The best of this and all later stages."""
    score_before: float
    score_after: float
    share: float
    """(before - after) / (before - floor): 1 if all is lost, at most 0 if nothing is."""
    low: float
    high: float
    """95 % interval of the share over the choice of images."""
    surely: float
    """Lower bound of the share at the level that is corrected for the number of stages; nan if nothing was readable."""

    @property
    def counts(self) -> bool:
        """Whether it is a loss for the verdict."""
        return self.share > MARGIN and self.surely > LEAST


def stage_losses(
    stages: Sequence[str],
    values: Float[np.ndarray, " stages"],
    floor: float,
    drawn: Float[np.ndarray, "resamples stages"],
    drawn_floor: Float[np.ndarray, " resamples"],
) -> tuple[StageLoss, ...]:
    """The loss of every stage of the student, in order; the level is divided by their number (Bonferroni)."""
    borders = _borders(stages)
    level = ERROR / max(len(borders), 1)
    losses = []
    for border in borders:
        gap, readable = border.gap(drawn), border.before(drawn) - drawn_floor
        low, high, surely = np.quantile(_shares(gap, readable), [0.025, 0.975, level])
        before, after = best_place(values, border.earlier), best_place(values, border.later)
        losses.append(
            StageLoss(
                place=border.place,
                before=stages[before],
                best_after=stages[after],
                score_before=float(values[before]),
                score_after=float(values[after]),
                share=float(_shares(border.gap(values), border.before(values) - floor)),
                low=float(low),
                high=float(high),
                surely=float(surely) if np.quantile(readable, level) > 0 else float("nan"),
            )
        )
    return tuple(losses)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Border:
    """A part of the student, with the stages that are compared across it."""

    place: str
    earlier: list[int]
    """The stage before; for the tower all sources."""
    later: list[int]
    """The stage after and all stages that follow."""

    def before(self, values: Float[np.ndarray, "*draws stages"]) -> Float[np.ndarray, "*draws"]:
        return np.asarray(values[..., self.earlier].max(axis=-1))

    def gap(self, values: Float[np.ndarray, "*draws stages"]) -> Float[np.ndarray, "*draws"]:
        return np.asarray(self.before(values) - values[..., self.later].max(axis=-1))


def _borders(stages: Sequence[str]) -> list[_Border]:
    """The parts of a student in order; without a source, its first stage has nothing before it."""
    own = [place for place, name in enumerate(stages) if name not in SOURCES]
    sources = [place for place, name in enumerate(stages) if name in SOURCES]
    earlier = [sources, *([place] for place in own[:-1])]
    return [
        _Border(place=_place(stages[own[order]]), earlier=before, later=own[order:])
        for order, before in enumerate(earlier)
        if before
    ]


def _place(stage: str) -> str:
    """The part of the student before a stage: the input of layer n + 1 is layer n's output."""
    if stage in (TOWER, PROJECTOR):
        return stage
    number = int(stage.removeprefix("layer "))
    return "W at layer 0" if number == 0 else f"layer {number - 1}"


def _shares(gap: Float[np.ndarray, "*draws"], readable: Float[np.ndarray, "*draws"]) -> Float[np.ndarray, "*draws"]:
    return np.asarray(np.divide(gap, readable, out=np.zeros(np.shape(gap)), where=np.asarray(readable) > 0))


def best_place(values: np.ndarray, places: Sequence[int]) -> int:
    return max(places, key=lambda place: float(values[place]))


def lost_places(stages: Sequence[str], drawn: np.ndarray, floor: np.ndarray) -> list[str | None]:
    """The place of the largest loss in every resample; `None` where none exceeds the margin."""
    borders = _borders(stages)
    if not borders:
        return [None] * len(drawn)
    shares = np.stack([_shares(border.gap(drawn), border.before(drawn) - floor) for border in borders])
    largest = shares.argmax(axis=0)
    return [
        borders[best].place if share > MARGIN else None for best, share in zip(largest, shares.max(axis=0), strict=True)
    ]
