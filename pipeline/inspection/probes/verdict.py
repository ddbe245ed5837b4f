"""The verdict on where a student loses information that an earlier stage has, and how sure it is.

Stage k loses what a probe reads at the stage before it, but neither at k nor at any later stage: what attention or a
later layer makes readable again was not lost. The first stage of the student, its tower, is compared with the pixels
and with the teacher. S stages, B resamples of the images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ....student.inspection.token_capture import PIXELS, PROJECTOR, TEACHER, TOWER
from ..number_text import percent, percent_interval
from ..stage_names import stage_title
from .stage_scores import StageScores

MARGIN = 0.25
"""Share of what is readable beyond the floor above which a loss counts."""
LEAST = 0.1
"""A loss counts only if it is surely above this share; undamaged students lose about as much (docs/results.md)."""
ENOUGH_IMAGES = 60
"""With fewer images a loss may be a false one; none were seen with this many (docs/results.md)."""
ERROR = 0.05
"""Probability of any false finding over all stages, one-sided."""
SOURCES = (PIXELS, TEACHER)
Kind = Literal["lost", "none", "unreadable"]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Where information of one family is lost."""

    family: str
    kind: Kind
    place: str | None
    """The stage with the largest loss; `None`: no loss found."""
    sentence: str
    named: float
    """Share of resamples of the images with the same result."""
    losses: tuple[StageLoss, ...]
    """Of every stage, in order."""

    def record(self) -> dict[str, Any]:
        """The values for inspection.json."""
        return asdict(self) | {"margin": MARGIN, "least": LEAST, "error": ERROR}


def judge(scores: StageScores, seed: int) -> Verdict:
    """Find the stages that lose information, and put the result into a sentence."""
    values, floor = scores.values(), scores.floor()
    drawn, drawn_floor = scores.resampled(seed)
    losses = stage_losses(scores.stages, values, floor, drawn, drawn_floor)
    lost = sorted((loss for loss in losses if loss.counts), key=lambda loss: -loss.share)
    kind: Kind = "lost" if lost else "none"
    if not _readable(drawn - drawn_floor[:, None]):
        kind, lost = "unreadable", []
    place = lost[0].place if lost else None
    named = float(np.mean([found == place for found in _places(scores.stages, drawn, drawn_floor)]))
    return Verdict(
        family=scores.family.name,
        kind=kind,
        place=place,
        sentence=_sentence(scores, kind, lost, losses, named),
        named=named,
        losses=losses,
    )


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
        before, after = _best(values, border.earlier), _best(values, border.later)
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


def _best(values: np.ndarray, places: Sequence[int]) -> int:
    return max(places, key=lambda place: float(values[place]))


def _readable(above: Float[np.ndarray, "draws stages"]) -> bool:
    """Whether a probe reads any stage better than the floor, beyond noise."""
    return bool((np.nanquantile(above, ERROR / above.shape[1], axis=0) > 0).any())


def _places(stages: Sequence[str], drawn: np.ndarray, floor: np.ndarray) -> list[str | None]:
    """The place of the largest loss in every resample; `None` where none exceeds the margin."""
    borders = _borders(stages)
    if not borders:
        return [None] * len(drawn)
    shares = np.stack([_shares(border.gap(drawn), border.before(drawn) - floor) for border in borders])
    largest = shares.argmax(axis=0)
    return [
        borders[best].place if share > MARGIN else None for best, share in zip(largest, shares.max(axis=0), strict=True)
    ]


def _sentence(
    scores: StageScores, kind: Kind, lost: Sequence[StageLoss], losses: Sequence[StageLoss], named: float
) -> str:
    family = scores.family
    where = f"balanced accuracy on {scores.images} held-out images; {family.floor} gives {scores.floor():.2f}"
    if kind == "unreadable":
        return (
            f"No verdict on {family.subject}: no stage is read better than {family.floor}, beyond noise "
            f"({family.floor} gives {scores.floor():.2f} balanced accuracy on {scores.images} held-out images)."
        )
    if lost:
        few = f" Fewer than {ENOUGH_IMAGES} images can give false losses." if scores.images < ENOUGH_IMAGES else ""
        return (
            f"Information about {family.subject} is lost at {_named(lost)}. A linear probe reads "
            f"{lost[0].score_before:.2f} at the {stage_title(lost[0].before)}, and at most {lost[0].score_after:.2f} "
            f"from there on ({where}): {percent_lost(lost[0])} of what was readable is lost. {percent(named)} of "
            f"resamples of the images name {place_title(lost[0].place)}.{few}"
        )
    largest, best = max(losses, key=lambda loss: loss.share), _best(scores.values(), range(len(scores.stages)))
    above = f"In {percent(1 - named)} of resamples of the images some stage exceeds {percent(MARGIN)}"
    return (
        f"No stage was found that loses information about {family.subject}. The largest drop that no later stage makes "
        f"up for is {percent_lost(largest)} of what was readable, at {place_title(largest.place)}; a loss counts above "
        f"{percent(MARGIN)} if it is surely above {percent(LEAST)}. The highest value is {scores.values()[best]:.2f} "
        f"at the {stage_title(scores.stages[best])} ({where}). {above}"
        + (", so a larger sample might find a loss." if named < 0.5 else ".")
    )


def place_title(place: str) -> str:
    """A part of the student as in a sentence.

    >>> from medalign.pipeline.inspection.probes.verdict import place_title
    >>> place_title("tower"), place_title("layer 2")
    ('the tower', 'layer 2')
    """
    return f"the {place}" if place in (TOWER, PROJECTOR) else place


def percent_lost(loss: StageLoss) -> str:
    """The lost share with its interval."""
    return percent_interval(loss.share, loss.low, loss.high)


def _named(lost: Sequence[StageLoss]) -> str:
    return " and, less, at ".join(place_title(loss.place) for loss in lost)
