"""Conversation files of LLaVA, LLaVA-Med, the paper and PubMedVision, and LLaVA-Med's evaluation file.

A record is `{id, image, conversations: [{from: human | gpt, value}, ...]}`; speakers may also be `user` and
`assistant`, and a `system` message may come first. `image` may be a list. A record of an evaluation file is
`{question_id, image, text, gpt4_answer}`. Optional fields in released files: `answer_type`, `split`,
`question_type`, `modality`, `organ`, `body_part`, `domain` (`{"ct_scan": true, ...}`), and `option_A` to `option_F`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import AnswerType, Manifest, ManifestRow, Turn
from ..common import DEFAULT_SPLIT, ImportOptions, refuse, shortened
from ..image_names import pick_root
from ..pending_questions import Asked, asked_manifest
from ..records import no_record, read_objects, text
from ..tables.answer_options import Options
from ..tables.notations import UnclearValue

IMAGE_TOKEN = "<image>"
SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
"""Names of speakers -> their roles."""
TURNS = ("human", "gpt")
_LETTERS = "ABCDEF"
OPTION_KEYS = tuple(f"option_{letter}" for letter in _LETTERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One valid record."""

    id: str
    images: tuple[str, ...]
    turns: tuple[tuple[str, str | None], ...]
    """Questions and answers; the last answer may be missing, as in test files."""
    system: bool
    """Whether it began with a system message, which is skipped."""
    evaluation: bool
    """Whether it is a record of an evaluation file."""
    answer_type: AnswerType | None
    options: tuple[str, ...] | None
    record: dict[str, Any]


class Malformed(ValueError):
    """A record violates the format; the message says how."""


def import_llava_json(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Make one row per turn, with the earlier turns of its conversation as history.

    Image names are relative to `options.images`, or else to the file's folder or its `images/`. The split of a question
    is `options.split`, or the record's `split`, or `train`; or `test` in an evaluation file.

    Raises:
        InputError: It is not such a file, records are malformed, or images are missing; one message lists all.
    """
    conversations = _read_conversations(src)
    names = [name for talk in conversations for name in talk.images]
    root = options.images or pick_root([src.parent, src.parent / "images"], names)
    systems = [talk.id for talk in conversations if talk.system]
    if systems:
        subject = counted(len(systems), "conversation begins", "conversations begin")
        progress.note(
            f"{subject} with a system message, which is skipped because a student's template has "
            f"its own; {shortened(systems)}"
        )
    unsplit = sum(not talk.evaluation and text(talk.record.get("split")) is None for talk in conversations)
    if unsplit:
        options.note_unsplit(counted(unsplit, "record is", "records are"), progress)
    asked = [Asked(images=talk.images, row=row) for talk in conversations for row in _rows(talk, options)]
    return asked_manifest(asked, root, f"llava-json {src.name}", progress)


def _rows(talk: Conversation, options: ImportOptions) -> Iterator[ManifestRow]:
    history: tuple[Turn, ...] = ()
    for number, (question, answer) in enumerate(talk.turns, start=1):
        yield ManifestRow(
            question_id=talk.id if len(talk.turns) == 1 else f"{talk.id}-turn{number}",
            question=question,
            answer=answer,
            answer_type=talk.answer_type,
            options=talk.options,
            history=history,
            split=options.split or text(talk.record.get("split")) or ("test" if talk.evaluation else DEFAULT_SPLIT),
            data_use=options.data_use or "private",
            question_type=text(talk.record.get("question_type")),
            modality=text(talk.record.get("modality")) or _domain(talk.record),
            organ=text(talk.record.get("organ")) or text(talk.record.get("body_part")),
        )
        history = (*history, Turn(question, answer or ""))


def _read_conversations(src: Path) -> list[Conversation]:
    conversations, problems = [], []
    records = read_objects(src)
    for place, record in records:
        try:
            conversations.append(_conversation(record))
        except Malformed as error:
            problems.append(f"{place}: {error}")
    refuse(problems, src, len(records), "records")
    if not conversations:
        raise InputError(f"{src} has no conversation")
    return conversations


def _conversation(record: object) -> Conversation:
    """Check one record.

    Raises:
        Malformed: It violates the format.
    """
    if not isinstance(record, dict):
        raise Malformed(no_record(record))
    identity = record.get("id", record.get("question_id"))
    if not isinstance(identity, str | int):
        raise Malformed("no id")
    images = _images(record.get("image") or None)
    evaluation = _evaluation(record)
    messages = evaluation or _messages(record)
    turns = _turns(messages, images=len(images))
    offered = Options.lettered({key[-1]: text(record[key]) for key in OPTION_KEYS if key in record})
    choices = offered.texts or None
    return Conversation(
        id=str(identity),
        images=images,
        turns=_named(turns, offered),
        system=_speaker(messages[0]) == "system",
        evaluation=evaluation is not None,
        answer_type=_answer_type(record, choices),
        options=choices,
        record=record,
    )


def _images(value: object) -> tuple[str, ...]:
    """One file name, a list of them, or none."""
    names = value if isinstance(value, list) else [] if value is None else [value]
    wrong = next((name for name in names if not isinstance(name, str) or not name.strip()), None)
    if wrong is not None:
        raise Malformed(f"image has {wrong!r}, which is not a file name")
    return tuple(names)


def _evaluation(record: dict[str, Any]) -> list[Any] | None:
    """An evaluation record's question and reference answer as a conversation."""
    if "conversations" in record or "conversatons" in record or not isinstance(record.get("text"), str):
        return None
    answer = record.get("gpt4_answer", record.get("answer"))
    return [{"from": "human", "value": record["text"]}, {"from": "gpt", "value": answer}]


def _messages(record: dict[str, Any]) -> list[Any]:
    # Released files have the misspelled key, and LLaVA-Med's evaluation reads both.
    messages = record.get("conversations", record.get("conversatons"))
    if not isinstance(messages, list) or not messages:
        raise Malformed("no conversations")
    return messages


def _turns(messages: list[Any], images: int) -> tuple[tuple[str, str | None], ...]:
    spoken = messages[1:] if _speaker(messages[0]) == "system" else messages
    skipped = len(messages) - len(spoken)
    values = [_value(index + skipped, TURNS[index % 2], message) for index, message in enumerate(spoken)]
    tokens = sum((value or "").count(IMAGE_TOKEN) for value in values)
    if tokens and not images:
        raise Malformed(f"{IMAGE_TOKEN} in a conversation without an image")
    if tokens > max(images, 1):
        raise Malformed(f"{IMAGE_TOKEN} more than once; a record has one image")
    texts = [text((value or "").replace(IMAGE_TOKEN, "")) for value in values]
    questions, answers = texts[0::2], texts[1::2]
    if not questions or None in questions:
        raise Malformed("an empty question")
    pairs = zip(questions, [*answers, None] if len(texts) % 2 else answers, strict=True)
    return tuple((question, answer) for question, answer in pairs if question is not None)


def _named(turns: tuple[tuple[str, str | None], ...], offered: Options) -> tuple[tuple[str, str | None], ...]:
    """Replace letters by options in answers if an empty option before others would shift the letters."""
    if "".join(letter for letter, option in offered.by_letter.items() if option) == _LETTERS[: len(offered.texts)]:
        return turns
    try:
        return tuple((question, answer and offered.chosen(answer)) for question, answer in turns)
    except UnclearValue as error:
        raise Malformed(str(error)) from error


def _speaker(message: object) -> str | None:
    said_by = message.get("from", message.get("role")) if isinstance(message, dict) else None
    return SPEAKERS.get(said_by) if isinstance(said_by, str) else None


def _value(index: int, expected: str, message: Any) -> str | None:
    """The text of one message, whose speaker must be the expected one; only an answer may be missing."""
    if not isinstance(message, dict) or _speaker(message) != expected:
        stated = message.get("from", message.get("role")) if isinstance(message, dict) else None
        raise Malformed(f"message {index} should be from {expected}, not from {stated!r}")
    key = "value" if "value" in message else "content"
    value = message.get(key)
    no_answer = value is None and expected == "gpt" and key in message
    if not no_answer and (not isinstance(value, str | int | float) or isinstance(value, bool)):
        raise Malformed(f"message {index} has no text")
    return text(value)


def _answer_type(record: dict[str, Any], choices: tuple[str, ...] | None) -> AnswerType | None:
    if choices:
        return "choice"
    stated = str(record.get("answer_type") or "").strip().lower()
    if not stated:
        return None
    for known in get_args(AnswerType):
        if stated == known and known != "choice":
            return known  # type: ignore[no-any-return]  # get_args gives the literals untyped
    raise Malformed(f"answer_type {record['answer_type']!r} is not one of open, closed, report")


def _domain(record: dict[str, Any]) -> str | None:
    """The modality in LLaVA-Med's instruction file, which has one flag per modality."""
    domain = record.get("domain")
    if not isinstance(domain, dict):
        return None
    return ", ".join(sorted(kind for kind, given in domain.items() if given is True)) or None
