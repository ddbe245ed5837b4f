"""Custom tables: CSV, Parquet or JSON with a question, an answer and an image in each row."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from .....choices import DataUse
from .....errors import InputError, SettingsError
from .....plain_text import counted, json_kind
from .....progress import Progress
from .....student.metrics.polarity import is_yes_or_no
from ...manifest import AnswerType, Manifest, ManifestRow
from ..common import DEFAULT_SPLIT, ImportOptions, refuse
from ..image_folders.embedded_images import StoredName, column_names, read_parquet
from ..image_names import pick_root
from ..pending_questions import Asked, asked_manifest
from ..records import no_record, read_objects, read_table, read_text, text
from .answer_options import Options, read_options
from .columns import NO_COLUMNS, TableColumns, letter_of, pick_columns
from .notations import UnclearText, UnclearValue, parse_structure, starts_with_quoted_item
from .split_notes import split_notes
from .table_files import TableFile, table_files

IMAGE_TOKEN = "<image>"
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators of CSV files; spreadsheets write semicolons in locales with decimal commas, databases vertical bars."""


def import_table(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Read a file, a folder with `metadata.csv` beside the images or per split, or a folder of Parquet files.

    Raises:
        InputError: There is no table, columns or images are missing, or rows are malformed.
    """
    asked = read_questions(table_files(src), options, "private", src.stem or "table", progress)
    return asked_manifest(asked, table_root(src, asked, options), f"table {src.name}", progress)


def table_root(src: Path, asked: Sequence[Asked], options: ImportOptions) -> Path:
    """The folder that image names are relative to: unpacked images, `--images`, or the table's folder or `images/`.

    Raises:
        SettingsError: `--images` is set, but the table contains its images.
    """
    names = [name for question in asked for name in question.images]
    if any(isinstance(name, StoredName) for name in names):
        if options.images is not None:
            raise SettingsError(f"--images {options.images}: not used, because {src} contains its images")
        return options.unpacked_folder(src)
    folder = src.parent if src.is_file() else src
    return options.images or pick_root([folder, folder / "images"], names)


def read_questions(
    files: Sequence[TableFile], options: ImportOptions, data_use: DataUse, prefix: str, progress: Progress
) -> list[Asked]:
    """The checked rows of all files; those without an id are numbered within their split.

    Raises:
        InputError: A file cannot be read, columns are missing, or rows are malformed; one message per file.
        SettingsError: A split is requested, but a file has a column for it.
    """
    asked: list[Asked] = []
    inferred = 0
    numbered: Counter[str] = Counter()
    for file in files:
        part = file.split or "row"
        found, without_type = _read_file(file, options, data_use, f"{prefix}-{part}", numbered[part], progress)
        inferred += without_type
        numbered[part] += len(found)
        asked += found
    counts = Counter(question.row.answer_type or "unknown" for question in asked)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    how = ""
    if inferred:
        how = (
            f"; {inferred} of them inferred, because the table does not state them (column answer_type): choice with "
            "options, closed for yes and no, else open"
        )
    progress.note(f"answer types: {kinds}{how}")
    return asked


def _read_file(
    file: TableFile, options: ImportOptions, data_use: DataUse, prefix: str, first: int, progress: Progress
) -> tuple[list[Asked], int]:
    """The questions of one table, and how many answer types it does not state."""
    rows = read_any(file.path, options, progress)
    if not rows:
        raise InputError(f"{file.path} has no rows")
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    if not names:
        refuse([f"{place}: {_values(row, NO_COLUMNS)}" for place, row in rows], file.path, len(rows), "rows")
    columns = pick_columns(file.path, names, options.columns)
    progress.note(f"{file.path.name}: {columns.described()}")
    given = options.split or options.drawn_split
    if given is not None and "split" in columns.roles:
        raise SettingsError(
            f"--split {given}: {file.path} has its own split in the column {columns.roles['split']}. Omit --split to "
            "use it, or rename or remove the column"
        )
    for note in split_notes(file, rows, columns, options):
        progress.note(note)
    asked, problems, inferred = [], [], 0
    for number, (place, row) in enumerate(rows, start=first):
        values = _checked_values(row, columns)
        problem = values if isinstance(values, str) else _problem(values, columns)
        if problem is not None or isinstance(values, str):
            problems.append(f"{place}: {problem}")
            continue
        question_id = values["question_id"] or f"{prefix}-{number}"
        question = _asked(values, question_id, file, place, options, data_use)
        inferred += question.row.answer_type is not None and values["answer_type"] is None
        asked.append(question)
    refuse(problems, file.path, len(rows), "rows")
    textual = sum(not question.images for question in asked)
    if textual:
        progress.note(f"{textual} of {len(asked)} questions of {file.path.name} have no image and are text-only")
    return asked, inferred


def read_any(path: Path, options: ImportOptions, progress: Progress) -> list[tuple[str, object]]:
    """The rows of any kind of table, each with its position; images inside Parquet are written to files.

    Raises:
        InputError: The file cannot be read, or is Parquet with missing columns.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        columns = pick_columns(path, column_names(path), options.columns)
        texts = {*columns.roles.values(), *columns.options}
        rows: Iterable[Mapping[str, Any]] = read_parquet(path, columns.images, texts, options.unpacked, progress)
    elif suffix in (".csv", ".tsv"):
        rows = _read_separated(path, progress)
    else:
        return read_objects(path)
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


def _read_separated(path: Path, progress: Progress) -> list[dict[str, str | None]]:
    """Read a CSV file; its separator is detected in the header."""
    header = next(iter(read_text(path).splitlines()), "")
    separator = max(SEPARATORS, key=header.count)
    if separator != ("\t" if path.suffix.lower() == ".tsv" else ","):
        progress.note(f"{path.name} is separated by {SEPARATORS[separator]}")
    rows = read_table(path, separator=separator)
    kept = [row for row in rows if any(text(value) is not None for value in row.values())]
    blank = len(rows) - len(kept)
    if blank:
        progress.note(f"{counted(blank, 'blank line')} of {path.name} {'is' if blank == 1 else 'are'} skipped")
    return kept


def _checked_values(row: object, columns: TableColumns) -> dict[str, Any] | str:
    """The values of a row by role, with an answer's letter replaced by its option; or what is wrong with the row."""
    try:
        values = _values(row, columns)
        if isinstance(values, dict) and values["answer"] is not None and values["options"].texts:
            values["answer"] = values["options"].chosen(values["answer"])
    except UnclearValue as error:
        return str(error)
    return values


def _values(row: object, columns: TableColumns) -> dict[str, Any] | str:
    if not isinstance(row, dict):
        return no_record(row)
    values: dict[str, Any] = {}
    for role, name in columns.roles.items():
        value = row.get(name)
        if role == "options":
            continue
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list | dict):
            return f"{name} is {json_kind(value)}, not text"
        values[role] = text(value)
    images = [image for name in columns.images for image in _image_names(name, row.get(name))]
    return (
        dict.fromkeys(("question_id", "split", "answer_type", "question_type", "modality", "organ"))
        | values
        | {
            "images": tuple(image for image in images if text(image) is not None),
            "options": _options(row, columns),
        }
    )


def _options(row: Mapping[str, Any], columns: TableColumns) -> Options:
    """The options of a row, from one column each or from a single one."""
    if columns.options:
        return Options.lettered({letter_of(name): text(row.get(name)) for name in columns.options})
    name = columns.roles.get("options")
    if name is None:
        return Options.listed(())
    try:
        return read_options(row.get(name), name)
    except UnclearText as error:
        raise UnclearValue(f"{name} {error}") from error


def _image_names(column: str, value: object) -> list[Any]:
    """The image names in a cell: one name, a list, or a list as text."""
    if isinstance(value, StoredName):
        return [value]
    if isinstance(value, str) and starts_with_quoted_item(value.strip()):
        try:
            value = parse_structure(value.strip())
        except UnclearText as error:
            raise UnclearValue(f"{column} {error}") from error
    names = value if isinstance(value, list) else [value]
    wrong = next((name for name in names if isinstance(name, list | dict | tuple)), None)
    if wrong is not None:
        raise UnclearValue(f"{column} has {json_kind(wrong)} instead of a file name")
    return [name if isinstance(name, StoredName) else text(name) for name in names]


def _problem(values: Mapping[str, Any], columns: TableColumns) -> str | None:
    if not (values["question"] or "").replace(IMAGE_TOKEN, "").strip():
        return f"no question in {columns.roles['question']}"
    stated = values["answer_type"]
    if stated is not None and stated.casefold() not in get_args(AnswerType):
        return f"answer_type {stated!r} is not one of {', '.join(get_args(AnswerType))}"
    options = values["options"].texts
    if len(options) == 1:
        return f"one option, {options[0]!r}: expected a list, A. one, B. other, or one | other"
    if (stated or "").casefold() == "choice" and not options:
        return "answer_type choice without options"
    if "split" in columns.roles and values["split"] is None:
        return f"no split in {columns.roles['split']}"
    return None


def _asked(
    values: Mapping[str, Any],
    question_id: str,
    file: TableFile,
    place: str,
    options: ImportOptions,
    data_use: DataUse,
) -> Asked:
    choices = values["options"].texts or None
    answer = values["answer"]
    row = ManifestRow(
        question_id=question_id,
        question=values["question"].replace(IMAGE_TOKEN, "").strip(),
        answer=answer,
        answer_type=answer_type(values["answer_type"], answer, choices),
        options=choices,
        split=options.split or values["split"] or file.split or DEFAULT_SPLIT,
        data_use=options.data_use or data_use,
        question_type=values["question_type"],
        modality=values["modality"],
        organ=values["organ"],
    )
    prefix = f"{file.folder}/" if file.folder and options.images is None else ""
    images = tuple(image if isinstance(image, StoredName) else f"{prefix}{image}" for image in values["images"])
    return Asked(images=images, row=row, place=f"{place} of {file.path.name}")


def answer_type(stated: str | None, answer: str | None, choices: Sequence[str] | None) -> AnswerType | None:
    """The stated type; else `choice` with options, `closed` for yes and no (是, 没有, ...), else `open`."""
    for known in get_args(AnswerType):
        if (stated or "").casefold() == known:
            return known  # type: ignore[no-any-return]  # get_args gives the literals untyped
    if choices:
        return "choice"
    if answer is None:
        return None
    return "closed" if is_yes_or_no(answer) else "open"
