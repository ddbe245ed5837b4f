"""Texts about a phantom: a full caption, open and closed questions, and a short report.

Yes and no are equally frequent within each type of closed question, so that guessing without the image scores one
half.
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
    """One question about a phantom and its answer."""

    question: str
    answer: str
    answer_type: Literal["open", "closed", "report"]
    question_type: str
    """presence, lesion, look, size, modality, count, organ, caption or report."""
    organ: str | None = None


def caption(phantom: Phantom) -> str:
    """A description of everything that questions ask about, organ by organ."""
    parts = [IMAGE_NAMES[phantom.modality]]
    for organ in DESCRIBED[phantom.modality]:
        look = phantom.looks[organ]
        parts.append(f"{organ} {look.brightness} and {look.texture}")
    if phantom.modality == "radiograph":
        parts.append("heart enlarged" if phantom.enlarged_heart else "heart normal")
    parts.append(_finding(phantom))
    return ". ".join(parts) + "."


def report(phantom: Phantom) -> str:
    """A report in sentences: the heart if visible, then the lesions or their absence."""
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
    """The request for a caption, then every applicable question once, then the request for a report.

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
    """An open question about the appearance of one organ, and a closed one about another."""
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
    """Questions about lesions; a quarter of phantoms have none, so presence is asked about a third of the others."""
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
    """The lesion in questions; all lesions of a phantom are of one kind in one organ."""
    return phantom.lesions[0] if phantom.lesions else None


def _finding(phantom: Phantom) -> str:
    lesion = _lesion(phantom)
    return "no lesion" if lesion is None else f"{COUNTS[len(phantom.lesions)]} {lesion.kind} in {lesion.organ}"
