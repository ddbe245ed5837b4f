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
from .stage_scores import StageScores

MARGIN = 0.25
"""Smallest share of what is readable beyond the floor that counts as a loss."""
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
    beyond_noise: bool
    """Whether the difference of the scores is above 0, and the stage before above the floor, at the corrected level."""

    @property
    def counts(self) -> bool:
        return self.beyond_noise and self.share > MARGIN


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
        return asdict(self) | {"margin": MARGIN, "error": ERROR}


def judge(scores: StageScores, seed: int) -> Verdict:
    """Find the stages that lose information, and put the result into a sentence."""
    values, floor = scores.values(), scores.floor()
    drawn, drawn_floor = scores.resampled(seed)
    losses = stage_losses(scores.stages, values, floor, drawn, drawn_floor)
    lost = sorted((loss for loss in losses if loss.counts), key=lambda loss: -loss.share)
    kind: Kind = "lost" if lost else "none"
    if not _readable(drawn - drawn_floor[:, None]).any():
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
    own = [place for place, name in enumerate(stages) if name not in SOURCES]
    sources = [place for place, name in enumerate(stages) if name in SOURCES]
    losses = []
    for order, place in enumerate(own):
        earlier = sources if order == 0 else [own[order - 1]]
        if not earlier:
            continue
        later = own[order:]
        gap, readable = _gap(drawn, drawn_floor, earlier, later)
        share, low, high = _share(values, floor, earlier, later), *_interval(gap, readable)
        level = ERROR / len(own)
        before, after = _best(values, earlier), _best(values, later)
        losses.append(
            StageLoss(
                place=_place(stages, own, order),
                before=stages[before],
                best_after=stages[after],
                score_before=float(values[before]),
                score_after=float(values[after]),
                share=share,
                low=low,
                high=high,
                beyond_noise=bool(np.nanquantile(gap, level) > 0 and np.nanquantile(readable, level) > 0),
            )
        )
    return tuple(losses)


def _gap(drawn: np.ndarray, floor: np.ndarray, earlier: Sequence[int], later: Sequence[int]) -> tuple[np.ndarray, ...]:
    """In every resample: how much lower all later stages are, and how much is readable before."""
    before = drawn[:, earlier].max(axis=1)
    return before - drawn[:, later].max(axis=1), before - floor


def _share(values: np.ndarray, floor: float, earlier: Sequence[int], later: Sequence[int]) -> float:
    before = values[earlier].max()
    if before <= floor:
        return 0.0
    return float((before - values[later].max()) / (before - floor))


def _interval(gap: np.ndarray, readable: np.ndarray) -> tuple[float, float]:
    share = np.divide(gap, readable, out=np.zeros_like(gap), where=readable > 0)
    low, high = np.quantile(share, [0.025, 0.975])
    return float(low), float(high)


def _best(values: np.ndarray, places: Sequence[int]) -> int:
    return max(places, key=lambda place: float(values[place]))


def _place(stages: Sequence[str], own: Sequence[int], order: int) -> str:
    """The part of the student between a stage and the one before it: the input of layer n + 1 is layer n's output."""
    name = stages[own[order]]
    if name in (TOWER, PROJECTOR):
        return name
    number = int(name.removeprefix("layer "))
    return "W at layer 0" if number == 0 else f"layer {number - 1}"


def _readable(above: np.ndarray) -> np.ndarray:
    """Stages that a probe reads better than the floor, beyond noise."""
    return np.asarray(np.nanquantile(above, ERROR / above.shape[1], axis=0) > 0)


def _places(stages: Sequence[str], drawn: np.ndarray, floor: np.ndarray) -> list[str | None]:
    """The place that the largest loss would name in every resample; `None` where none exceeds the margin."""
    own = [place for place, name in enumerate(stages) if name not in SOURCES]
    sources = [place for place, name in enumerate(stages) if name in SOURCES]
    shares, names = [], []
    for order in range(len(own)):
        earlier = sources if order == 0 else [own[order - 1]]
        if earlier:
            gap, readable = _gap(drawn, floor, earlier, own[order:])
            shares.append(np.divide(gap, readable, out=np.zeros_like(gap), where=readable > 0))
            names.append(_place(stages, own, order))
    if not shares:
        return [None] * len(drawn)
    largest = np.argmax(shares, axis=0)
    return [names[best] if shares[best][row] > MARGIN else None for row, best in enumerate(largest)]


def _sentence(
    scores: StageScores, kind: Kind, lost: Sequence[StageLoss], losses: Sequence[StageLoss], named: float
) -> str:
    family, floor = scores.family, scores.floor()
    held_out = f"balanced accuracy on {scores.images} held-out images"
    if kind == "unreadable":
        return (
            f"{family.name.capitalize()}: no verdict, because no stage reads them better than {family.floor} "
            f"({held_out}; {family.floor} {floor:.2f})."
        )
    if lost:
        return (
            f"{family.name.capitalize()}: information is lost at the {_named(lost)}: a linear probe reads "
            f"{lost[0].score_before:.2f} at the {_stage(lost[0].before)} and at most {lost[0].score_after:.2f} from there on "
            f"({held_out}; {family.floor} {floor:.2f}), a loss of {_percent(lost[0])} of what was readable; "
            f"{named:.0%} of resamples of the images name it."
        )
    largest = max(losses, key=lambda loss: loss.share, default=None)
    if largest is None:
        return f"{family.name.capitalize()}: no verdict, because there is only one stage."
    best = max(range(len(scores.stages)), key=lambda place: float(scores.values()[place]))
    return (
        f"{family.name.capitalize()}: no loss found: the largest drop that no later stage makes up for is "
        f"{_percent(largest)} of what was readable, at the {largest.place}, below the margin of {MARGIN:.0%} or within "
        f"noise (best: {scores.values()[best]:.2f} at the {_stage(scores.stages[best])}; {held_out}; {family.floor} "
        f"{floor:.2f}); {named:.0%} of resamples of the images agree."
    )


def _named(lost: Sequence[StageLoss]) -> str:
    return " and, less, at the ".join(loss.place for loss in lost)


def _stage(name: str) -> str:
    return f"input of {name}" if name.startswith("layer") else name


def _percent(loss: StageLoss) -> str:
    return f"{max(loss.share, 0):.0%} [{loss.low:.0%}, {loss.high:.0%}]"
