"""LLaVA's conversation files, as LLaVA-Med and the paper train on: one record per image, one or more turns.

A record reads `{id, image, conversations: [{from: human | gpt, value}, ...]}`. Optional, as found in released
files: `answer_type`, `split`, `question_type`, `modality`, `organ`, `domain` (`{"ct_scan": true, ...}`), and
`option_A` to `option_F` of multiple-choice sets.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError
from ...progress import Progress
from ..manifest import AnswerType, Manifest, ManifestRow, Turn
from .common import ImageColumns, ImportOptions, read_images, refuse, tell_result, with_unique_ids

IMAGE_TOKEN = "<image>"
SPEAKERS = ("human", "gpt")
OPTION_KEYS = tuple(f"option_{letter}" for letter in "ABCDEF")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One record that was found in order."""

    id: str
    image: str | None
    turns: tuple[tuple[str, str | None], ...]
    """Questions and answers; the last answer may be missing, as in test files."""
    answer_type: AnswerType | None
    options: tuple[str, ...] | None
    record: dict[str, Any]


class Malformed(ValueError):
    """A record breaks the format; the message says how."""


def import_llava_json(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Make one row per turn, with the earlier turns of its conversation as history.

    Image names start from `options.images`, or else from the file's own folder. Questions go to `options.split`, or
    to the record's own `split`, or to `train`.

    Raises:
        InputError: not such a file; malformed records or missing images, all in one message.
    """
    root = options.images or src.parent
    conversations = _read_conversations(src)
    images = [talk.image for talk in conversations if talk.image is not None]
    found = read_images(root, images, progress)
    rows = [
        row
        for talk in conversations
        if talk.image is None or talk.image in found.columns
        for row in _rows(talk, found.columns[talk.image] if talk.image is not None else {}, options)
    ]
    manifest = Manifest.from_rows(with_unique_ids(rows, progress), root, f"llava-json {src.name}", found.unreadable)
    tell_result(manifest, progress)
    return manifest


def _rows(talk: Conversation, image: ImageColumns, options: ImportOptions) -> Iterator[ManifestRow]:
    history: tuple[Turn, ...] = ()
    for number, (question, answer) in enumerate(talk.turns, start=1):
        yield ManifestRow(
            question_id=talk.id if len(talk.turns) == 1 else f"{talk.id}-turn{number}",
            question=question,
            answer=answer,
            answer_type=talk.answer_type,
            options=talk.options,
            history=history,
            split=options.split or _text(talk.record, "split") or "train",
            data_use=options.data_use or "private",
            question_type=_text(talk.record, "question_type"),
            modality=_text(talk.record, "modality") or _domain(talk.record),
            organ=_text(talk.record, "organ"),
            **image,
        )
        history = (*history, Turn(question, answer or ""))


def _read_conversations(src: Path) -> list[Conversation]:
    conversations, problems, total = [], [], 0
    for place, record in _records(src):
        total += 1
        try:
            conversations.append(_conversation(record))
        except Malformed as error:
            problems.append(f"{place}: {error}")
    refuse(problems, src, total, "records")
    if not conversations:
        raise InputError(f"{src} holds no conversation")
    return conversations


def _records(src: Path) -> Iterator[tuple[str, object]]:
    """Records of a JSON list or of JSON lines, each with its place; a broken line comes as a `JSONDecodeError`."""
    try:
        text = src.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{src} cannot be read as a JSON text: {error}") from error
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{src} is not readable JSON: {error}") from error
        for index, record in enumerate(records):
            yield f"record {index}", record
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                yield f"line {number}", error


def _conversation(record: object) -> Conversation:
    """Check one record.

    Raises:
        Malformed: it breaks the format.
    """
    if isinstance(record, json.JSONDecodeError):
        raise Malformed(f"not JSON ({record.msg} at column {record.colno})")
    if not isinstance(record, dict):
        raise Malformed(f"a {type(record).__name__}, not an object")
    if not isinstance(record.get("id"), str | int):
        raise Malformed("no id")
    image = record.get("image") or None
    if not isinstance(image, str | None):
        raise Malformed(f"image is a {type(image).__name__}, not one file name")
    # The misspelt key is in released files, and LLaVA-Med's own evaluation reads both.
    turns = _turns(record.get("conversations", record.get("conversatons")), has_image=image is not None)
    choices = tuple(str(record[key]) for key in OPTION_KEYS if record.get(key) is not None) or None
    return Conversation(
        id=str(record["id"]),
        image=image,
        turns=turns,
        answer_type=_answer_type(record, choices),
        options=choices,
        record=record,
    )


def _turns(conversation: object, has_image: bool) -> tuple[tuple[str, str | None], ...]:
    if not isinstance(conversation, list) or not conversation:
        raise Malformed("no conversations")
    values = [_value(index, message) for index, message in enumerate(conversation)]
    if not has_image and any(IMAGE_TOKEN in value for value in values):
        raise Malformed(f"{IMAGE_TOKEN} in a conversation without an image")
    if sum(value.count(IMAGE_TOKEN) for value in values) > 1:
        raise Malformed(f"{IMAGE_TOKEN} more than once; a record has one image")
    texts = [value.replace(IMAGE_TOKEN, "").strip() for value in values]
    questions, answers = texts[0::2], texts[1::2]
    if not all(questions):
        raise Malformed("an empty question")
    return tuple(zip(questions, [*answers, None] if len(texts) % 2 else answers, strict=True))


def _value(index: int, message: object) -> str:
    """The text of one message, whose speaker must be whoever's turn it is."""
    expected = SPEAKERS[index % 2]
    speaker = message.get("from") if isinstance(message, dict) else None
    if not isinstance(message, dict) or speaker != expected:
        raise Malformed(f"message {index} should be from {expected}, not from {speaker!r}")
    value = message.get("value")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise Malformed(f"message {index} has no text")
    return str(value)


def _answer_type(record: dict[str, Any], choices: tuple[str, ...] | None) -> AnswerType | None:
    if choices:
        return "choice"
    stated = str(record.get("answer_type") or "").strip().lower()
    if not stated:
        return None
    for known in get_args(AnswerType):
        if stated == known and known != "choice":
            return known  # type: ignore[no-any-return]  # get_args gives the literals untyped
    raise Malformed(f"answer_type {record['answer_type']!r} is none of open, closed, report")


def _text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    return None if value is None else str(value).strip() or None


def _domain(record: dict[str, Any]) -> str | None:
    """The modality as LLaVA-Med's instruction file states it, one flag per kind."""
    domain = record.get("domain")
    if not isinstance(domain, dict):
        return None
    return ", ".join(sorted(kind for kind, given in domain.items() if given is True)) or None
