"""A report as one HTML page with everything inside: without network, light and dark, for screen and print.

The page's own policy forbids every request, so text of a data set or of a model can never load anything.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ... import __version__
from ...atomic import write_whole
from ...choices import AnswerState
from ...errors import InputError
from ...plain_text import shown, with_terms_joined
from ...progress import Progress
from ...student.file_errors import is_file, reading, writing
from .figures.figure import Figure
from .figures.figure_files import FOLDER, Picture, write_figures

REPORT_FILE: Final = "report.html"
_TEMPLATES: Final = Path(__file__).parent / "templates"

_LONG_CELL: Final = 48
"""In letters."""

State = Literal["good", "bad", "neutral"]
"""How a finding is to be read; shown as a word and a border, never as a color alone."""


@dataclass(frozen=True, slots=True)
class Strong:
    """Text of a cell in bold, such as the best value of a column."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table; numbers are aligned right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    """Text as it is, `Strong` in bold; None is a dash, and floats get four significant digits."""
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a page, listed in its table of contents."""

    title: str
    text: Sequence[str] = ()
    """Paragraphs."""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()
    """Commands to copy, one a line."""
    folded: bool = False
    """Whether the reader has to open it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleAnswer:
    """One answer to a question."""

    name: str
    """Who answered: `base`, or the name of an adapter."""
    text: str
    state: AnswerState
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    """Such as the score and the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One question with its image and answers."""

    name: str
    """Its question id."""
    question: str
    reference: str
    answers: Sequence[SampleAnswer]
    picture: bytes | None = None
    """A small JPEG or PNG: the image, or attention on it."""
    alt: str = ""
    """What the picture shows."""
    labels: Sequence[str] = ()
    """What the reader can filter by: `wrong`, `changed for the worse`."""
    keys: Mapping[str, float] = field(default_factory=dict)
    """What the reader can sort by, ascending: title -> value. All samples of a page have the same titles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A report. The lead answers the reader's question in one or two sentences."""

    title: str
    lead: str
    state: State = "neutral"
    notice: str = ""
    """What to know before sharing the page, such as the data-use class of its images."""
    facts: Mapping[str, object] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    samples: Sequence[Sample] = ()
    """Shown after the sections, in this order at first."""
    samples_text: str = ""
    """How the samples were chosen."""

    @property
    def figures(self) -> list[Figure]:
        """All figures of the page."""
        return [figure for section in self.sections for figure in section.figures]


def write_page(path: Path, page: Page, progress: Progress | None = None) -> None:
    """Write a page, and its figures with their data in the folder `figures` beside it; an earlier page is replaced.

    Raises:
        InputError: The page is not the one that medalign wrote; nothing is changed.
        MedalignError: A file cannot be written.
    """
    _check_own(path)
    pictures = write_figures(path.parent / FOLDER, page.figures, progress)
    data = render_page(page, pictures).encode()
    with writing(path):
        write_whole(path, (data + _SEAL % _digest(data)).decode())


_SEAL: Final = b"<!-- medalign: SHA-256 of all above %s -->\n"
"""The last line of a page, by which an edited one is recognized; earlier versions wrote none."""
_SEALED: Final = re.compile(rb"<!-- medalign: SHA-256 of all above ([0-9a-f]{64}) -->\n\Z")
_GENERATOR: Final = b'<meta name="generator" content="medalign '


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _check_own(path: Path) -> None:
    """Check that no file of the user is at `path`, nor a page of medalign that the user edited."""
    if not is_file(path):
        return
    with reading(path):
        data = path.read_bytes()
    seal = _SEALED.search(data)
    if _GENERATOR not in data:
        what = "was not written by medalign"
    elif seal is not None and _digest(data[: seal.start()]) != seal[1]:
        what = "was edited after medalign wrote it"
    else:
        return
    raise InputError(f"{path} {what}, and a new page would replace it: rename it or remove it, then try again")


def render_page(page: Page, pictures: Mapping[str, Picture]) -> str:
    """A page as HTML; `pictures` has the picture of each figure by the figure's name."""
    script = (_TEMPLATES / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .from_string((_TEMPLATES / "page.html.j2").read_text())
        .render(
            page=page,
            pictures={name: _data_url(picture.data, picture.mime) for name, picture in pictures.items()},
            style=Markup((_TEMPLATES / "page.css").read_text()),
            script=Markup(script),
            script_digest=digest,
            version=__version__,
            count_label=lambda samples, label: sum(label in sample.labels for sample in samples),
            all_labels=lambda samples: list(dict.fromkeys(label for sample in samples for label in sample.labels)),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "cell": _cell,
        "is_number": _is_number,
        "is_long": _is_long,
        "picture": _picture,
        "anchor": _anchor,
        "prose": _prose,
        "text": _text,
    }
    return environment


def _text(value: object) -> str:
    """Text of a model or a data set, or a command: control characters are escaped."""
    return shown(str(value), lines=True)


def _prose(value: object) -> str:
    """Text of the page itself: no line ends between a number and its percent sign."""
    return with_terms_joined(_text(value))


def _cell(value: object) -> str:
    if isinstance(value, Strong):
        return Markup("<strong>{}</strong>").format(_prose(value.text))
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "\N{EN DASH}" if value != value else f"{value:z.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return _prose(value)


def _is_number(value: object) -> bool:
    """Whether a cell is aligned right: a number, also one that is already formatted."""
    if isinstance(value, str):
        return re.fullmatch(r"[+-]?[\d,]*\.?\d+(?:\s?%)?", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_long(value: object) -> bool:
    """Whether a cell is a sentence, which needs width on a phone."""
    return isinstance(value, str) and len(value) > _LONG_CELL


def _picture(data: bytes) -> str:
    return _data_url(data, "image/png" if data.startswith(b"\x89PNG") else "image/jpeg")


def _data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _anchor(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
