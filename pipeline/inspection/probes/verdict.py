"""The verdict on where a student loses information that an earlier stage has, and how sure it is.

Stage k loses what a probe reads at the stage before it, but neither at k nor at any later stage: what attention or a
later layer makes readable again was not lost. The first stage of the student, its tower, is compared with the pixels
and with the teacher. S stages, B resamples of the images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ....student.inspection.token_capture import PROJECTOR, TOWER
from ..number_text import percent, percent_interval
from ..stage_names import stage_title
from .lost_shares import ERROR, LEAST, MARGIN, StageLoss, best_place, lost_places, stage_losses
from .stage_scores import StageScores

ENOUGH_IMAGES = 60
"""With fewer images a loss may be a false one; none were seen with this many (docs/results.md)."""
NO_STAGE = "none"
"""The outcome of a resample in which no stage exceeds the margin."""
Kind = Literal["lost", "none", "unreadable"]


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
    outcomes: Mapping[str, float]
    """Stage, or `none` -> share of the resamples in which it is the result, the most frequent first."""
    losses: tuple[StageLoss, ...]
    """Of every stage, in order."""

    @property
    def uncertain(self) -> bool:
        """Whether fewer than half of the resamples have the same result; the sentence then begins with it."""
        return self.kind != "unreadable" and self.named < 0.5

    def record(self) -> dict[str, Any]:
        """The values for inspection.json."""
        return asdict(self) | {"uncertain": self.uncertain, "margin": MARGIN, "least": LEAST, "error": ERROR}


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
    counts = Counter(found or NO_STAGE for found in lost_places(scores.stages, drawn, drawn_floor))
    outcomes = {outcome: count / len(drawn) for outcome, count in counts.most_common()}
    return Verdict(
        family=scores.family.name,
        kind=kind,
        place=place,
        sentence=_sentence(scores, kind, lost, losses, outcomes),
        named=outcomes.get(place or NO_STAGE, 0.0),
        outcomes=outcomes,
        losses=losses,
    )


def _readable(above: Float[np.ndarray, "draws stages"]) -> bool:
    """Whether a probe reads any stage better than the floor, beyond noise."""
    return bool((np.nanquantile(above, ERROR / above.shape[1], axis=0) > 0).any())


def _sentence(
    scores: StageScores,
    kind: Kind,
    lost: Sequence[StageLoss],
    losses: Sequence[StageLoss],
    outcomes: Mapping[str, float],
) -> str:
    family = scores.family
    where = f"balanced accuracy on {scores.images} held-out images; {family.floor} gives {scores.floor():.2f}"
    if kind == "unreadable":
        return (
            f"No verdict on {family.subject}: no stage is read better than {family.floor}, beyond noise "
            f"({family.floor} gives {scores.floor():.2f} balanced accuracy on {scores.images} held-out images)."
        )
    return _about_loss(scores, lost, outcomes, where) if lost else _about_no_loss(scores, losses, outcomes, where)


def _about_loss(scores: StageScores, lost: Sequence[StageLoss], outcomes: Mapping[str, float], where: str) -> str:
    subject, first = scores.family.subject, lost[0]
    named = outcomes.get(first.place, 0.0)
    few = f" Fewer than {ENOUGH_IMAGES} images can give false losses." if scores.images < ENOUGH_IMAGES else ""
    start = f"Information about {subject} is lost at {_named(lost)}."
    share = f"{percent_lost(first)} of what was readable is lost"
    agree = f" {percent(named)} of resamples of the images name {place_title(first.place)}."
    if named < 0.5:
        start = (
            f"Uncertain: information about {subject} may be lost at {_named(lost)}, but "
            f"{agreement(first.place, outcomes)}."
        )
        share, agree = f"the estimated loss is {percent_lost(first)} of what was readable", ""
    return (
        f"{start} A linear probe reads {first.score_before:.2f} at the {stage_title(first.before)}, and at most "
        f"{first.score_after:.2f} from there on ({where}): {share}.{agree}{few}"
    )


def _about_no_loss(scores: StageScores, losses: Sequence[StageLoss], outcomes: Mapping[str, float], where: str) -> str:
    subject, named = scores.family.subject, outcomes.get(NO_STAGE, 0.0)
    largest, best = max(losses, key=lambda loss: loss.share), best_place(scores.values(), range(len(scores.stages)))
    start = f"No stage was found that loses information about {subject}."
    above = f" In {percent(1 - named)} of resamples of the images some stage exceeds {percent(MARGIN)}."
    if named < 0.5:
        start = (
            f"Uncertain: no stage passes the test for losing information about {subject}, but "
            f"{agreement(None, outcomes)}, so a larger sample might find a loss."
        )
        above = ""
    return (
        f"{start} The largest drop that no later stage recovers is {percent_lost(largest)} of what was readable, at "
        f"{place_title(largest.place)}; {RULE}. The highest value is {scores.values()[best]:.2f} at the "
        f"{stage_title(scores.stages[best])} ({where}).{above}"
    )


RULE = (
    f"a loss counts if it is above {percent(MARGIN)} and the lower end of its interval, corrected for the number of "
    f"stages, is above {percent(LEAST)}"
)
"""When a loss counts, in words."""


def agreement(place: str | None, outcomes: Mapping[str, float]) -> str:
    """How many resamples have the verdict's result, and what the others name, as a part of a sentence.

    >>> from medalign.pipeline.inspection.probes.verdict import agreement
    >>> agreement(None, {"tower": 0.5, "none": 0.3, "layer 1": 0.2})
    'only 30 % of resamples of the images agree; 70 % name a stage, most often the tower (50 %)'
    >>> agreement("projector", {"layer 3": 0.45, "projector": 0.4, "none": 0.15})
    'only 40 % of resamples of the images agree; 45 % name layer 3, and 15 % name none'
    """
    named = outcomes.get(place or NO_STAGE, 0.0)
    others = {stage: share for stage, share in outcomes.items() if stage not in (place, NO_STAGE)}
    parts = []
    if others:
        most = max(others, key=lambda stage: others[stage])
        which = f"{'another' if place else 'a'} stage, most often {place_title(most)} ({percent(others[most])})"
        parts.append(f"{percent(sum(others.values()))} name {place_title(most) if len(others) == 1 else which}")
    if place is not None and outcomes.get(NO_STAGE):
        parts.append(f"{percent(outcomes[NO_STAGE])} name none")
    exact = percent(named, int(percent(named) == percent(0.5)))  # 49.6 % is not half
    return f"only {exact} of resamples of the images agree; {', and '.join(parts)}"


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


def short_verdict(verdict: Verdict) -> str:
    """A verdict in a few words, for a table."""
    if verdict.kind == "unreadable":
        return "no verdict: not readable"
    if verdict.uncertain:
        return f"uncertain: perhaps lost at {place_title(verdict.place)}" if verdict.place else "uncertain"
    return f"lost at {place_title(verdict.place)}" if verdict.place else "no loss found"


def verdict_with(arm: str, verdict: Verdict) -> str:
    """The verdict on an adapter in one sentence."""
    if not verdict.uncertain:
        return f"With {arm}: {short_verdict(verdict)}."
    told = f"perhaps lost at {place_title(verdict.place)}" if verdict.place else "no stage passes the test"
    return f"Uncertain: with {arm}, {told}, but {agreement(verdict.place, verdict.outcomes)}."
