"""The roles of a table's columns: guessed from common names, or set with `--column question=NAME`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .....errors import InputError, SettingsError
from .answer_options import LETTERS

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "prompt", "instruction"),
    "answer": ("answer", "answers", "gt_answer", "ground_truth", "reference_answer", "reference", "response", "target"),
    "image": (
        *("image", "images", "image_path", "image_paths", "img_path", "image_file", "image_name", "img_name"),
        *("file_name", "img", "file", "path"),
    ),
    "question_id": ("question_id", "qid", "id"),
    "split": ("split", "partition", "subset"),
    "answer_type": ("answer_type",),
    "options": ("options", "choices"),
    "question_type": ("question_type", "content_type"),
    "modality": ("modality", "modality_type"),
    "organ": ("organ", "image_organ", "body_part", "location"),
}
"""Role -> common column names, the most likely first.

Case, spaces and underscores are ignored.
"""
REQUIRED = ("question", "answer", "image")
MANY = "image"
"""The one role that several columns may have."""
_OPTION_STEMS = ("option", "choice", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableColumns:
    """The names of the columns to read."""

    roles: Mapping[str, str]
    """Role -> column, for every role except images."""
    images: tuple[str, ...]
    options: tuple[str, ...]
    """One column per option; empty if the options are in one column, or there are none."""
    unused: tuple[str, ...]

    def described(self) -> str:
        read = [f"{role}={name}" for role, name in self.roles.items()] + [f"image={name}" for name in self.images]
        read += [f"options={','.join(self.options)}"] if self.options else []
        return f"columns read: {', '.join(read)}; not used: {', '.join(self.unused) or 'none'}"


NO_COLUMNS = TableColumns(roles={}, images=(), options=(), unused=())


def parse_columns(stated: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Parse `question=Q` and the like into pairs.

    Raises:
        SettingsError: Not of this form, an unknown role, or a role other than `image` twice.
    """
    pairs = [tuple(part.split("=", 1)) for part in stated]
    wrong = [part for part, pair in zip(stated, pairs, strict=True) if len(pair) != 2 or pair[0] not in USUAL_NAMES]
    roles = [pair[0] for pair in pairs]
    if wrong:
        raise SettingsError(f"--column {wrong[0]}: expected ROLE=NAME, with ROLE one of {', '.join(USUAL_NAMES)}")
    repeated = [role for role in USUAL_NAMES if role != MANY and roles.count(role) > 1]
    if repeated:
        raise SettingsError(f"--column {repeated[0]}=... is given twice; only image may have several columns")
    return tuple((pair[0], pair[1]) for pair in pairs)


def pick_columns(path: Path, names: Sequence[str], stated: Sequence[tuple[str, str]]) -> TableColumns:
    """The columns of a table: the stated ones, then those with common names.

    Raises:
        InputError: A required or stated column is missing, or two are equally likely.
    """
    absent = [f"{role}={name}" for role, name in stated if name not in names]
    if absent:
        raise InputError(f"{path} has no column for {', '.join(absent)}; its columns: {', '.join(names)}")
    roles = {role: name for role, name in stated if role != MANY}
    images = [name for role, name in stated if role == MANY]
    taken = {name for _, name in stated}
    for role in USUAL_NAMES:
        if role in roles or (role == MANY and images):
            continue
        guessed = _guess(path, role, [name for name in names if name not in taken])
        if guessed is not None and role == MANY:
            images = [guessed]
        elif guessed is not None:
            roles[role] = guessed
        taken |= {guessed} if guessed is not None else set()
    missing = [role for role in REQUIRED if role not in roles and not (role == MANY and images)]
    if missing:
        raise InputError(_missing_message(path, names, missing))
    options = () if "options" in roles else _option_columns([name for name in names if name not in taken])
    unused = tuple(name for name in names if name not in taken and name not in options)
    return TableColumns(roles=roles, images=tuple(images), options=options, unused=unused)


def _guess(path: Path, role: str, names: Sequence[str]) -> str | None:
    for usual in USUAL_NAMES[role]:
        likely = [name for name in names if _folded(name) == _folded(usual)]
        if len(likely) > 1:
            raise InputError(
                f"{path}: the columns {', '.join(likely)} could all be the {role}; pick one with --column {role}=NAME"
            )
        if likely:
            return likely[0]
    return None


def _option_columns(names: Sequence[str]) -> tuple[str, ...]:
    """`option_A`, `option_B` and so on, `Choice A`, or `A`, `B`; at least two of one kind."""
    for stem in _OPTION_STEMS:
        keys = [f"{stem}{letter.lower()}" for letter in LETTERS]
        found = sorted((name for name in names if _folded(name) in keys), key=lambda name: keys.index(_folded(name)))
        if len(found) > 1:
            return tuple(found)
    return ()


def letter_of(name: str) -> str:
    """The letter of an option's column."""
    return _folded(name)[-1].upper()


def _missing_message(path: Path, names: Sequence[str], missing: Sequence[str]) -> str:
    tried = "\n".join(f"  {role}: {', '.join(USUAL_NAMES[role])}" for role in missing)
    options = " ".join(f"--column {role}=NAME" for role in missing)
    return (
        f"{path} has no column for {', '.join(missing)}; its columns: {', '.join(names) or 'none'}\n"
        f"Looked for:\n{tried}\nSpecify {'it' if len(missing) == 1 else 'them'} with {options}"
    )


def _folded(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
