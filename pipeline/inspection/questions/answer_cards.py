"""One card for each shown question: picture, question, reference, and the answers and losses of every arm."""

from collections.abc import Callable, Sequence

from ...reports.page import Sample, SampleAnswer
from .answer_changes import AnswerFindings, ArmAnswer
from .asked_questions import AskedQuestions

WORSE = "changed for the worse"
BETTER = "changed for the better"


def make_cards(
    questions: AskedQuestions,
    shown: Sequence[int],
    answers: AnswerFindings,
    pictures: Sequence[bytes],
    alts: Sequence[str],
) -> tuple[Sample, ...]:
    """The cards of the questions in `shown`, those that changed for the worse first; `pictures` are in their order.

    Without adapters nothing changed, so the worst answers of the base come first.
    """
    orders = _orders(answers, shown)
    first = next(iter(orders.values()))
    places = {index: place for place, index in enumerate(shown)}
    return tuple(
        Sample(
            name=questions.frame["question_id"][index],
            question=questions.frame["question"][index],
            reference=questions.frame["answer"][index] or "(none)",
            answers=[_answer(answers, name, index) for name in answers.answers],
            picture=pictures[places[index]],
            alt=alts[places[index]],
            labels=_labels(answers, index),
            keys={title: float(order.index(index)) for title, order in orders.items()},
        )
        for index in first
    )


def _orders(answers: AnswerFindings, shown: Sequence[int]) -> dict[str, list[int]]:
    """The order of the cards by title; ties in the score are in the order of the loss, then of the manifest."""
    others = [name for name in answers.answers if name != answers.base]
    arms = others or [answers.base]

    def least_score(index: int) -> float:
        return min(_or_zero(answers.answers[name][index].score) for name in arms)

    def most_loss(index: int) -> float:
        return max(_or_zero(answers.answers[name][index].loss_lm) for name in arms)

    by_loss = sorted(shown, key=lambda index: -most_loss(index))
    by_score = sorted(shown, key=lambda index: (least_score(index), -most_loss(index)))
    found: dict[str, list[int]] = {}
    if others:
        found["changed for the worse first"] = sorted(shown, key=_by_change(answers, others, worst=True))
        found["changed for the better first"] = sorted(shown, key=_by_change(answers, others, worst=False))
    return found | {
        "wrong answers first": by_score,
        "largest loss of the reference first": by_loss,
        "order of the manifest": sorted(shown),
    }


def _by_change(answers: AnswerFindings, others: Sequence[str], *, worst: bool) -> Callable[[int], tuple[float, float]]:
    """The largest change of the score over the adapters, then that of the loss; for the worse, or for the better."""
    sign = 1 if worst else -1

    def key(index: int) -> tuple[float, float]:
        scores = [sign * _or_zero(answers.change(name, index)) for name in others]
        losses = [-sign * _or_zero(answers.loss_change(name, index)) for name in others]
        return min(scores), min(losses)

    return key


def _answer(answers: AnswerFindings, name: str, index: int) -> SampleAnswer:
    found: ArmAnswer = answers.answers[name][index]
    numbers = {"score": found.score, "loss": found.loss_lm}
    if name != answers.base:
        numbers |= {"score change": answers.change(name, index), "loss change": answers.loss_change(name, index)}
    return SampleAnswer(name=name, text=found.answer.text, state=found.state, numbers=numbers)


def _labels(answers: AnswerFindings, index: int) -> list[str]:
    changes = [answers.change(name, index) or 0.0 for name in answers.answers]
    labels = [WORSE] * any(change < 0 for change in changes) + [BETTER] * any(change > 0 for change in changes)
    return labels + [f"{name}: {arm[index].state}" for name, arm in answers.answers.items()]


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value
