"""The findings on attention and answers in words."""

from collections.abc import Iterator

from ....plain_text import counted, signed_text
from ...evaluation.grounding.layer_statistics import ALL_LAYERS
from ...evaluation.statistics import Difference
from ..number_text import change_text, interval_text, percent
from .answer_changes import AnswerFindings
from .attention_measures import ArmAttention, AttentionFindings


def answer_sentences(answers: AnswerFindings) -> list[str]:
    """How many answers of each arm are right, and what changed from the base."""
    lines = []
    for name, summary in answers.summaries.items():
        scored = sum(answer.score is not None for answer in answers.answers[name])
        right = f"{summary.states['right']} of {scored} scored answers are right"
        line = f"{name}: {right if scored else 'no answer is scored'}"
        if summary.score_change is not None:
            line += (
                f"; compared with {answers.base}, {summary.better} changed for the better and {summary.worse} for the "
                f"worse (mean score {change_text(summary.score_change)}{_certainty(summary.score_change)})"
            )
        if summary.loss_change is not None:
            changed = f"{change_text(summary.loss_change)}{_certainty(summary.loss_change)}"
            line += f"; the loss of the reference changed by {changed}"
        lines.append(f"{line}.")
    return lines


def attention_sentences(found: AttentionFindings) -> list[str]:
    """How much of each arm's attention is inside regions, and on sinks."""
    return [f"{name}: {'; '.join(_attention_parts(arm))}." for name, arm in found.arms.items()]


def _attention_parts(arm: ArmAttention) -> Iterator[str]:
    yield f"{percent(float(arm.shares['image'][:, :-1].mean()), 1)} of the question's attention is on the image"
    if arm.regions is not None:
        mass, chance = arm.regions.at(ALL_LAYERS, "mass"), arm.regions.chance["mass"]
        if mass.value is not None and chance is not None:
            inside = f"of that, {percent(mass.value, 1)} is inside the regions ({percent(chance, 1)} by chance"
            yield f"{inside}{_points(mass.change)})"
    if arm.sinks is not None:
        count, share = int(arm.sinks[-1].sum()), float(arm.shares["sinks"][:, -1].nanmean())
        sinks = f"{percent(share, 1)} of the mean map is on {counted(count, 'sink token')}"
        yield sinks if count else "no token of the mean map is a sink"


def _points(change: Difference | None) -> str:
    """A change of a share from the first student, in percentage points, for the end of a parenthesis."""
    if change is None:
        return ""
    limits = interval_text(100 * change.low, 100 * change.high, 2, signed=True)
    return f"; change {signed_text(100 * change.mean, 2)} points {limits}{_certainty(change)}"


def _certainty(change: Difference) -> str:
    return "" if change.beyond_noise else ", not significant"
