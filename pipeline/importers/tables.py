"""A table of one's own: CSV, Parquet or JSON with a question, an answer and an image in each row."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError
from ...progress import Progress
from ..manifest import AnswerType, DataUse, Manifest, ManifestRow
from .choices import chosen_option, split_options
from .columns import TableColumns, pick_columns
from .common import Asked, ImportOptions, asked_manifest, refuse
from .names import pick_root
from .packed import StoredName, parquet_files, read_parquet
from .records import read_objects, read_table, read_text, text
from .splits import SPLIT_NAMES, split_name

IMAGE_TOKEN = "<image>"
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Of Hugging Face's image folders: beside the images, or in a folder for each split."""
PARQUET_PATTERNS = ("data/*.parquet", "*-of-*.parquet", "*/????.parquet", "*/*/????.parquet")
"""Of a data set of the Hugging Face hub, as it is cloned and as its converted branch has it (`default/train/0000`)."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Of a CSV file; spreadsheets write semicolons where the comma is in numbers."""
_SHARD = re.compile(r"^(?P<split>.+?)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_DEFAULT_SPLIT = "train"
_SPLIT_ORDER = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One file of a table and what its place says."""

    path: Path
    split: str | None
    """Of all its rows, by its name or its folder's; `None` where neither is a split's name."""
    folder: str = ""
    """Of its image names, relative to the image root."""


def import_table(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read a file, or a folder with `metadata.csv` beside the images or in one folder a split, or a folder of Parquet.

    Raises:
        InputError: no table, columns are missing, rows are malformed, or images are missing.
    """
    files = table_files(src)
    asked = [
        question
        for file in files
        for question in read_questions(file, options, "private", f"{src.stem or 'table'}", progress)
    ]
    if not asked:
        raise InputError(f"{src} has no rows")
    _tell_guessed(asked, progress)
    return asked_manifest(asked, table_root(src, asked, options), f"table {src.name}", progress)


def table_files(src: Path) -> list[TableFile]:
    """The files of a table.

    Raises:
        InputError: there is none, it is of an unknown kind, or a part of a Parquet table is missing.
    """
    if src.is_file():
        if src.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(
                f"{src} is no table: expected {', '.join(TABLE_SUFFIXES)}; save a spreadsheet as CSV UTF-8"
            )
        return [TableFile(path=src, split=file_split(src))]
    places = [path for name in METADATA_NAMES for path in (*src.glob(name), *src.glob(f"*/{name}"))]
    if places:
        return [
            TableFile(path=path, split=_known_split(path.parent.name), folder=_relative(path.parent, src))
            for path in sorted(places)
        ]
    return hub_files(src)


def hub_files(src: Path) -> list[TableFile]:
    """The Parquet files of a copy of a data set of the Hugging Face hub.

    Raises:
        InputError: there are none, or a split lacks some of its parts.
    """
    files = parquet_files(src, PARQUET_PATTERNS)
    if not files:
        raise InputError(f"{src} has no table: looked for {', '.join((*METADATA_NAMES, *PARQUET_PATTERNS))}")
    parts: dict[tuple[str, int], set[int]] = {}
    for found in (_SHARD.match(path.name) for path in files if not src.is_file()):
        if found is not None:
            parts.setdefault((found["split"], int(found["parts"])), set()).add(int(found["part"]))
    gaps = [f"{split}: {len(there)} of {count}" for (split, count), there in parts.items() if len(there) != count]
    if gaps:
        raise InputError(f"{files[0].parent} lacks Parquet files of a split ({'; '.join(gaps)}): fetch the rest")
    tables = [TableFile(path=path, split=file_split(path)) for path in files]
    return sorted(tables, key=lambda file: (_SPLIT_ORDER.index(file.split) if file.split else -1, file.path))


def file_split(path: Path) -> str | None:
    """`train` of train.csv, train-00000-of-00001.parquet and train/0000.parquet."""
    found = _SHARD.match(path.name)
    return _known_split(found["split"] if found else path.stem) or _known_split(path.parent.name)


def table_root(src: Path, asked: Sequence[Asked], options: ImportOptions) -> Path:
    """Where image names start from: the unpacked images, `--images`, or the table's folder or its `images/`."""
    names = [name for question in asked for name in question.images]
    if any(isinstance(name, StoredName) for name in names):
        return options.unpacked_folder(src)
    folder = src.parent if src.is_file() else src
    return options.images or pick_root([folder, folder / "images"], names)


def read_questions(
    file: TableFile, options: ImportOptions, data_use: DataUse, prefix: str, progress: Progress
) -> list[Asked]:
    """The rows of one file, checked.

    Raises:
        InputError: it cannot be read, columns are missing, or rows are malformed; all of them in one message.
    """
    rows = read_any(file.path, options, progress)
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    columns = pick_columns(file.path, names, options.columns)
    progress.note(f"{file.path.name}: {columns.described()}")
    asked, problems = [], []
    for number, (place, row) in enumerate(rows):
        values = _values(row, columns)
        problem = values if isinstance(values, str) else _problem(values, columns)
        if problem is not None or isinstance(values, str):
            problems.append(f"{place}: {problem}")
            continue
        question_id = values["question_id"] or f"{prefix}-{file.split or 'row'}-{number}"
        asked.append(_asked(values, question_id, file, options, data_use))
    refuse(problems, file.path, len(rows), "rows")
    textual = sum(not question.images for question in asked)
    if textual:
        progress.note(f"{textual} of {len(asked)} questions of {file.path.name} name no image and are text alone")
    return asked


def read_any(path: Path, options: ImportOptions, progress: Progress) -> list[tuple[str, object]]:
    """The rows of a table of any kind, each with its place; images inside Parquet are written as files.

    Raises:
        InputError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows: Iterable[Mapping[str, Any]] = read_parquet(path, options.unpacked, progress)
    elif suffix in (".csv", ".tsv"):
        rows = _read_separated(path, progress)
    else:
        return read_objects(path)
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _read_separated(path: Path, progress: Progress) -> list[dict[str, str | None]]:
    """A CSV file; semicolons and tabs, which spreadsheets write in some countries, are known by the header."""
    header = next(iter(read_text(path).splitlines()), "")
    separator = max(SEPARATORS, key=header.count)
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        progress.note(f"{path.name} is separated by {SEPARATORS[separator]}")
    rows = read_table(path, separator=separator)
    blank = [row for row in rows if all(text(value) is None for value in row.values())]
    if blank:
        progress.note(f"{len(blank)} blank lines of {path.name} are left out")
    return [row for row in rows if row not in blank]


def _values(row: object, columns: TableColumns) -> dict[str, Any] | str:
    """What a row says by role, or what is wrong with it."""
    if isinstance(row, json.JSONDecodeError):
        return f"not JSON ({row.msg} at column {row.colno})"
    if not isinstance(row, dict):
        return f"a {type(row).__name__}, not an object"
    values: dict[str, Any] = {}
    for role, name in columns.roles.items():
        value = row.get(name)
        if role != "options" and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if role != "options" and isinstance(value, list | dict):
            return f"{name} is a {type(value).__name__}, not text"
        values[role] = value if role == "options" else text(value)
    images = [image for name in columns.images for image in _listed(row.get(name))]
    choices = [text(row.get(name)) for name in columns.options]
    options = choices if columns.options else _listed(values.get("options"), split=True)
    return (
        dict.fromkeys(("question_id", "split", "answer_type", "question_type", "modality", "organ"))
        | values
        | {
            "images": tuple(image for image in images if text(image) is not None),
            "options": tuple(option for option in options if option is not None),
        }
    )


def _listed(value: object, split: bool = False) -> list[Any]:
    """A cell as a list: one value, a list, or a JSON list as text; with `split`, options in any notation."""
    if isinstance(value, list):
        return [item if isinstance(item, str) else text(item) for item in value]
    if isinstance(value, StoredName):
        return [value]
    written = text(value)
    if written is None:
        return []
    return list(split_options(written)) if split or written.startswith('["') else [written]


def _problem(values: Mapping[str, Any], columns: TableColumns) -> str | None:
    if not (values["question"] or "").replace(IMAGE_TOKEN, "").strip():
        return f"no question in {columns.roles['question']}"
    stated = values["answer_type"]
    if stated is not None and stated.casefold() not in get_args(AnswerType):
        return f"answer_type {stated!r} is none of {', '.join(get_args(AnswerType))}"
    if len(values["options"]) == 1:
        return f"one option, {values['options'][0]!r}: expected a list, A. one, B. other, or one | other"
    if (stated or "").casefold() == "choice" and not values["options"]:
        return "answer_type choice without options"
    if "split" in columns.roles and values["split"] is None:
        return f"no split in {columns.roles['split']}"
    return None


def _asked(
    values: Mapping[str, Any], question_id: str, file: TableFile, options: ImportOptions, data_use: DataUse
) -> Asked:
    choices = values["options"] or None
    answer = values["answer"]
    if answer is not None and choices:
        answer = chosen_option(answer, choices)
    row = ManifestRow(
        question_id=question_id,
        question=values["question"].replace(IMAGE_TOKEN, "").strip(),
        answer=answer,
        answer_type=answer_type(values["answer_type"], answer, choices),
        options=choices,
        split=options.split or values["split"] or file.split or _DEFAULT_SPLIT,
        data_use=options.data_use or data_use,
        question_type=values["question_type"],
        modality=values["modality"],
        organ=values["organ"],
    )
    prefix = f"{file.folder}/" if file.folder and options.images is None else ""
    images = tuple(image if isinstance(image, StoredName) else f"{prefix}{image}" for image in values["images"])
    return Asked(images=images, row=row)


def answer_type(stated: str | None, answer: str | None, choices: Sequence[str] | None) -> AnswerType | None:
    """The stated type; else `choice` with options, `closed` for yes and no, and `open` for any other answer."""
    for known in get_args(AnswerType):
        if (stated or "").casefold() == known:
            return known  # type: ignore[no-any-return]  # get_args gives the literals untyped
    if choices:
        return "choice"
    if answer is None:
        return None
    return "closed" if answer.casefold().rstrip(".") in ("yes", "no") else "open"


def _tell_guessed(asked: Sequence[Asked], progress: Progress) -> None:
    counts = Counter(question.row.answer_type or "unknown" for question in asked)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    progress.note(f"answer types: {kinds}; without a column answer_type, yes and no are closed and other answers open")


def _known_split(name: str) -> str | None:
    return split_name(name) if name.strip().casefold() in SPLIT_NAMES else None


def _relative(folder: Path, src: Path) -> str:
    name = folder.relative_to(src).as_posix()
    return "" if name == "." else name
