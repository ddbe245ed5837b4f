"""Texts about a phantom: a caption that names everything, open and closed questions, and a short report.

Closed questions are asked so that yes and no are equally frequent within each question type, so that knowing the
question without the image is worth half the points.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .phantom import DESCRIBED, LESION_KINDS, LESION_SITES, Lesion, Phantom

IMAGE_NAMES = {"radiograph": "chest radiograph", "CT": "abdominal CT"}
ARTICLES = {"radiograph": "a chest radiograph", "CT": "an abdominal CT"}
COUNTS = {0: "none", 1: "one", 2: "two"}

CAPTION_REQUEST = "Describe the image."
REPORT_REQUEST = "Write a short report."


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomQuestion:
    """One question about a phantom and its true answer."""

    question: str
    answer: str
    answer_type: Literal["open", "closed", "report"]
    question_type: str
    """presence, lesion, look, size, modality, count, organ, caption or report."""
    organ: str | None = None


def caption(phantom: Phantom) -> str:
    """Everything that questions can be about, organ by organ."""
    parts = [IMAGE_NAMES[phantom.modality]]
    for organ in DESCRIBED[phantom.modality]:
        look = phantom.looks[organ]
        parts.append(f"{organ} {look.brightness} and {look.texture}")
    if phantom.modality == "radiograph":
        parts.append("heart enlarged" if phantom.enlarged_heart else "heart normal")
    parts.append(_finding(phantom))
    return ". ".join(parts) + "."


def report(phantom: Phantom) -> str:
    """Findings in sentences: the heart where there is one, lesions, or that nothing was found."""
    sentences = [f"This is {ARTICLES[phantom.modality]}."]
    if phantom.modality == "radiograph":
        sentences.append(f"The heart is {'enlarged' if phantom.enlarged_heart else 'normal'} in size.")
    lesion = _lesion(phantom)
    if lesion is None:
        sentences.append("There is no lesion.")
    else:
        verb = "is one" if len(phantom.lesions) == 1 else "are two"
        sentences.append(f"There {verb} {lesion.kind} in the {lesion.organ}.")
    return " ".join(sentences)


def ask(phantom: Phantom, rng: np.random.Generator) -> list[PhantomQuestion]:
    """The request for a caption, then every question that suits this phantom, once each, then the report.

    The order is fixed; `rng` picks organs and polarity.
    """
    questions = [
        _text(CAPTION_REQUEST, caption(phantom), "caption"),
        _modality(phantom),
        _modality_closed(phantom, rng),
        _count(phantom),
    ]
    questions += _looks(phantom, rng)
    if phantom.modality == "radiograph":
        questions.append(_closed("Is the heart enlarged?", phantom.enlarged_heart, "size", "heart"))
    questions += _lesions(phantom, rng)
    return [*questions, _text(REPORT_REQUEST, report(phantom), "report")]


def _closed(question: str, truth: bool, question_type: str, organ: str | None = None) -> PhantomQuestion:
    answer = "yes" if truth else "no"
    return PhantomQuestion(
        question=question, answer=answer, answer_type="closed", question_type=question_type, organ=organ
    )


def _open(question: str, answer: str, question_type: str, organ: str | None = None) -> PhantomQuestion:
    return PhantomQuestion(
        question=question, answer=answer, answer_type="open", question_type=question_type, organ=organ
    )


def _text(request: str, answer: str, question_type: str) -> PhantomQuestion:
    return PhantomQuestion(question=request, answer=answer, answer_type="report", question_type=question_type)


def _modality(phantom: Phantom) -> PhantomQuestion:
    return _open("What kind of image is this?", IMAGE_NAMES[phantom.modality], "modality")


def _modality_closed(phantom: Phantom, rng: np.random.Generator) -> PhantomQuestion:
    asked = ARTICLES["radiograph" if rng.random() < 0.5 else "CT"]
    return _closed(f"Is this {asked}?", asked == ARTICLES[phantom.modality], "modality")


def _count(phantom: Phantom) -> PhantomQuestion:
    return _open("How many lesions are there?", COUNTS[len(phantom.lesions)], "count")


def _looks(phantom: Phantom, rng: np.random.Generator) -> list[PhantomQuestion]:
    """How one organ looks, and whether another has one of its looks."""
    organs = DESCRIBED[phantom.modality]
    shown, asked = (organs[int(index)] for index in rng.permutation(len(organs))[:2])
    look = phantom.looks[shown]
    word = ("bright", "dark", "coarse", "smooth")[int(rng.integers(4))]
    truth = word in (phantom.looks[asked].brightness, phantom.looks[asked].texture)
    return [
        _open(f"How does the {shown} look?", f"{look.brightness} and {look.texture}", "look", shown),
        _closed(f"Is the {asked} {word}?", truth, "look", asked),
    ]


def _lesions(phantom: Phantom, rng: np.random.Generator) -> list[PhantomQuestion]:
    """Whether and where there is a lesion; a quarter of the phantoms have none, so presence is asked of a third."""
    lesion = _lesion(phantom)
    if lesion is None:
        return [_closed("Is there a lesion?", False, "presence")]
    questions = [
        _open("Where is the lesion?", lesion.organ, "organ", lesion.organ),
        _open("What kind of lesion is there?", lesion.kind, "lesion", lesion.organ),
        _site_closed(phantom, lesion, rng),
        _kind_closed(phantom, lesion, rng),
    ]
    if rng.random() < 1 / 3:
        questions.append(_closed("Is there a lesion?", True, "presence"))
    return questions


def _site_closed(phantom: Phantom, lesion: Lesion, rng: np.random.Generator) -> PhantomQuestion:
    organ = lesion.organ
    if rng.random() < 0.5:
        organ = _other(LESION_SITES[phantom.modality], organ, rng)
    return _closed(f"Is the lesion in the {organ}?", organ == lesion.organ, "organ", organ)


def _kind_closed(phantom: Phantom, lesion: Lesion, rng: np.random.Generator) -> PhantomQuestion:
    kind: str = lesion.kind
    if rng.random() < 0.5:
        kind = _other(LESION_KINDS[phantom.modality], kind, rng)
    return _closed(f"Is the lesion a {kind}?", kind == lesion.kind, "lesion", lesion.organ)


def _other(options: tuple[str, ...], wrong: str, rng: np.random.Generator) -> str:
    rest = [option for option in options if option != wrong]
    return rest[int(rng.integers(len(rest)))]


def _lesion(phantom: Phantom) -> Lesion | None:
    """The lesion that questions are about; all lesions of a phantom are of one kind in one organ."""
    return phantom.lesions[0] if phantom.lesions else None


def _finding(phantom: Phantom) -> str:
    lesion = _lesion(phantom)
    return "no lesion" if lesion is None else f"{COUNTS[len(phantom.lesions)]} {lesion.kind} in {lesion.organ}"
