"""The findings on attention and answers in words."""

from ...evaluation.grounding.layer_statistics import ALL_LAYERS
from ...evaluation.statistics import Difference
from .answer_changes import AnswerFindings
from .attention_measures import AttentionFindings


def answer_sentences(answers: AnswerFindings) -> list[str]:
    """How many answers of each arm are right, and what changed from the base."""
    lines = []
    for name, summary in answers.summaries.items():
        scored = sum(answer.score is not None for answer in answers.answers[name])
        line = (
            f"{name}: {summary.states['right']} of {scored} scored answers are right" if scored else f"{name}: no score"
        )
        if summary.score_change is not None:
            line += (
                f"; compared with {answers.base}, {summary.better} changed for the better and {summary.worse} for the "
                f"worse (mean score {change_text(summary.score_change)}{_certainty(summary.score_change)})"
            )
        if summary.loss_change is not None:
            line += f"; loss of the reference {change_text(summary.loss_change)}{_certainty(summary.loss_change)}"
        lines.append(f"{line}.")
    return lines


def attention_sentences(found: AttentionFindings) -> list[str]:
    """How much of each arm's attention is inside regions, and on sinks."""
    lines = []
    for name, arm in found.arms.items():
        parts = []
        if arm.regions is not None:
            mass, chance = arm.regions.at(ALL_LAYERS, "mass"), arm.regions.chance["mass"]
            if mass.value is not None and chance is not None:
                parts.append(
                    f"{100 * mass.value:.1f} % of the attention is inside the regions ({100 * chance:.1f} % by chance)"
                )
            if mass.change is not None:
                parts.append(f"a change of {change_text(mass.change)}{_certainty(mass.change)}")
        if arm.sinks is not None:
            count, share = int(arm.sinks[-1].sum()), float(arm.shares["sinks"][:, -1].nanmean())
            parts.append(f"{count} sink tokens get {100 * share:.1f} % of it" if count else "no token is a sink")
        if parts:
            lines.append(f"{name}: {', '.join(parts)}.")
    return lines


def change_text(change: Difference | None) -> str:
    """A difference with its 95 % interval; empty without one."""
    return "" if change is None else f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _certainty(change: Difference) -> str:
    return "" if change.beyond_noise else ", not significant"
