"""Files of figures: NAME.parquet with the data and all words, and NAME.svg and NAME.png drawn from it.

The Parquet file alone is enough to draw a figure again, with other colors or another version of medalign.
"""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ....atomic import AtomicFile, remove_leftovers
from ....choices import FigureFormat
from ....errors import InputError
from ....progress import Progress
from ....saved_records import parse_record
from ....student.file_errors import is_file, reason, writing
from ....suggestions import to_pass
from ...data import saved_tables
from .drawing import KINDS, draw
from .figure import Figure

FOLDER: Final = "figures"
"""Folder of figures beside a report."""
FORMAT: Final = "medalign-figure"
VERSION: Final = 1
PAGE_FORMATS: Final[tuple[FigureFormat, ...]] = ("svg", "png")
"""The pictures that every report has."""
_QUALITY: Final = 82
_REPORTS: Final = "pass the --out of a command that writes a report"
_REMEDY: Final = "run the command that wrote the report again"


class _Version(BaseModel):
    """The part of the metadata that every version has."""

    model_config = ConfigDict(frozen=True)

    format: str
    version: int


class _Header(_Version):
    """What the metadata of a figure's Parquet file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    title: str
    caption: str
    alt: str
    settings: dict[str, Any]


_VERSION: Final = TypeAdapter(_Version)
_HEADER: Final = TypeAdapter(_Header)


class NotAFigure(InputError):
    """A table that is no figure of medalign."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a figure for a page."""

    data: bytes
    mime: str


def write_figures(folder: Path, figures: Iterable[Figure], progress: Progress | None = None) -> dict[str, Picture]:
    """Write the data and the pictures of figures; existing files with their names are replaced.

    Returns the picture of each figure for a page by name: SVG, or for photographs JPEG, which is much smaller.

    Raises:
        InputError: `folder` is a file.
        MedalignError: A file cannot be written.
        ValueError: Two figures have one name.
    """
    listed = list(figures)
    names = [figure.name for figure in listed]
    if len(set(names)) < len(names):
        raise ValueError(f"two figures are called {next(name for name in names if names.count(name) > 1)!r}")
    check_figure_folder(folder)
    if progress is not None and listed:
        progress.start("drawing figures", len(listed))
    pictures: dict[str, Picture] = {}
    for figure in listed:
        write_figure_data(folder, figure)
        svg, png = draw(figure, "svg", "png")
        _write_pictures(folder, figure.name, {"svg": svg, "png": png})
        is_photograph = figure.kind in ("overlays", "points")
        pictures[figure.name] = Picture(_as_jpeg(png), "image/jpeg") if is_photograph else Picture(svg, "image/svg+xml")
        if progress is not None:
            progress.advance()
    return pictures


def check_figure_folder(folder: Path) -> None:
    """Check that no file has the name of the folder of figures.

    Raises:
        InputError: One has.
    """
    if is_file(folder):
        raise InputError(f"{folder} is a file, but figures go to a folder of this name: rename or remove the file")


def write_figure_data(folder: Path, figure: Figure) -> None:
    """Write only the data of a figure, from which `medalign report draw` draws its pictures.

    Raises:
        MedalignError: It cannot be written.
    """
    header = {"format": FORMAT, "version": VERSION} | {
        name: getattr(figure, name) for name in ("name", "kind", "title", "caption", "alt", "settings")
    }
    path = folder / f"{figure.name}.parquet"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        saved_tables.write(path, figure.table, header)


def remove_other_figures(folder: Path, kept: Collection[str]) -> list[Path]:
    """Remove the files of figures that medalign wrote to a report's folder of figures, unless their names are `kept`.

    A Parquet file is medalign's if it is a figure of its own name; its pictures go with it. All other files stay.
    Returns the removed files.

    Raises:
        MedalignError: A file cannot be removed.
    """
    removed: list[Path] = []
    for path in sorted(folder.glob("*.parquet")):
        if path.stem not in kept and _is_own(path):
            pictures = [path.with_suffix(f".{name}") for name in get_args(FigureFormat)]
            for file in (*pictures, path):  # the one that identifies them last
                with writing(file):
                    if file.is_file():
                        file.unlink()
                        removed.append(file)
    return removed


def _is_own(path: Path) -> bool:
    try:
        return read_figure(path).name == path.stem
    except InputError:
        return False


def read_figure(path: Path) -> Figure:
    """The figure in a Parquet file.

    Raises:
        InputError: The file is not a figure's, is damaged, or of a newer version.
    """
    saved = saved_tables.read(path, _REMEDY)
    if saved.header is None:
        raise NotAFigure(f"{path} is not a figure of medalign: its metadata has no header")
    remedy = f"To repair it, {_REMEDY}"
    found = parse_record(_VERSION, saved.header, path, "header", remedy)
    if found.format != FORMAT:
        raise NotAFigure(f"{path} is not a figure of medalign: its format is {found.format!r}, not {FORMAT!r}")
    if found.version > VERSION:
        raise InputError(_too_new(path, f"version {found.version}"))
    header = parse_record(_HEADER, saved.header, path, "header", remedy)
    if header.kind not in KINDS:
        raise InputError(_too_new(path, f"version {found.version}, kind {header.kind!r}"))
    words = header.model_dump(exclude={"format", "version"})
    try:
        return Figure(table=saved.rows, **words)
    except ValueError as error:
        raise InputError(f"{path} is not a figure of medalign: {error}. To repair it, {_REMEDY}") from error


def _too_new(path: Path, found: str) -> str:
    return (
        f"{path} is {FORMAT} {found}; this medalign draws {FORMAT} up to version {VERSION} of the kinds "
        f"{', '.join(sorted(KINDS))}. Update medalign to draw it"
    )


def figure_paths(folder: Path) -> list[Path]:
    """The data files of the figures in a report's folder, or in its folder of figures.

    Raises:
        InputError: There is none.
    """
    if not is_file(folder) and not folder.exists():
        raise InputError(f"{folder} does not exist: {_report_to_pass(folder)}")
    if is_file(folder):
        raise InputError(f"{folder} is a file, not the folder of a report: {_report_to_pass(folder)}")
    inner = folder / FOLDER
    check_figure_folder(inner)
    paths = sorted((inner if inner.is_dir() else folder).glob("*.parquet"))
    if not paths or not (inner.is_dir() or any(map(_may_be_figure, paths))):
        advice = _report_to_pass(folder)
        raise InputError(f"{folder} has no figures (FIGURE.parquet, or figures/FIGURE.parquet): {advice}")
    return paths


def _report_to_pass(wrong: Path) -> str:
    return to_pass(wrong, lambda folder: any((folder / FOLDER).glob("*.parquet")), _REPORTS)


def _may_be_figure(path: Path) -> bool:
    """Whether a table is a figure, which may be damaged or of a newer version."""
    try:
        read_figure(path)
    except NotAFigure:
        return False
    except InputError:
        return True
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnFigures:
    """Pictures that were drawn again."""

    folder: Path
    """The folder with the pictures, which is inside the folder of a report."""
    pictures: tuple[Path, ...]

    def summary(self) -> dict[str, object]:
        return {"folder": self.folder, "pictures": [path.name for path in self.pictures]}


def draw_again(folder: Path, progress: Progress, formats: Sequence[FigureFormat] = PAGE_FORMATS) -> DrawnFigures:
    """Draw all figures in a folder again from their data, in each of these formats.

    Raises:
        InputError: There is none, or a file is damaged; figures before it are drawn.
    """
    paths = figure_paths(folder)
    progress.start("drawing figures", len(paths))
    pictures: list[Path] = []
    for path in paths:
        pictures += _write_pictures(path.parent, path.stem, _drawn(path, formats))
        progress.advance()
    return DrawnFigures(folder=paths[0].parent, pictures=tuple(pictures))


def _drawn(path: Path, formats: Sequence[FigureFormat]) -> dict[FigureFormat, bytes]:
    """The pictures of the figure in a file."""
    figure = read_figure(path)
    try:
        return dict(zip(formats, draw(figure, *formats), strict=True))
    except Exception as error:  # a table or settings that are not those of its kind
        why = f"its data is not that of a figure of {figure.kind}: {reason(error)}"
        raise InputError(f"{path} cannot be drawn: {why}. To repair it, {_REMEDY}") from error


def _as_jpeg(png: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _write_pictures(folder: Path, name: str, pictures: Mapping[FigureFormat, bytes]) -> list[Path]:
    paths = {picture_format: folder / f"{name}.{picture_format}" for picture_format in pictures}
    for picture_format, path in paths.items():
        with writing(path):
            remove_leftovers(path)
            with AtomicFile(path) as file:
                file.write(pictures[picture_format])
    return list(paths.values())
