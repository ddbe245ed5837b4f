"""The page of `medalign student attend`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ...digests import sha256_of
from ...progress import Progress
from ...student.file_errors import writing
from ..reports.figures.figure_files import FOLDER
from ..reports.page import REPORT_FILE, Page, Section, Table, write_page
from ..reports.runs.wording import listed
from .attend_changes import change_sentences
from .attend_figures import MAIN, image_title, layer_figures, layer_title, main_figure, percent, place
from .attend_report import AttendReport

PICTURE: Final = f"{MAIN}.png"

_ON_IMAGE: Final = "Share of the question's attention on the image"
_ON_PADDING: Final = "part of the attention on the image that is on padding"
_DISTANCE: Final = "divergence from the teacher's attention, KL(E_a || M_a), in nats"
_LAST_ROW: Final = "The last row is of the mean map: the mean of the maps of these layers"
_MOST_COLUMNS: Final = 6
"""Columns of numbers that fit on a printed page."""

_TEXT = (
    "The picture shows how much attention each image token gets from the question: the mean over all heads, and over "
    "all text tokens between the image and the answer, which include words of the prompt template. It is read while "
    "the student reads the prompt, before it answers.",
    "Attention says from which image tokens a layer reads. It does not say that the answer follows from them: some "
    "tokens, often at the border, get attention in every image, and earlier layers have already mixed each token with "
    "others.",
)


def write_attention(folder: Path, report: AttendReport, progress: Progress) -> None:
    """Write the page with its figures into a folder, and the picture of the main one beside the page.

    Raises:
        MedalignError: A file cannot be written.
    """
    write_page(folder / REPORT_FILE, attend_page(report), progress)
    with writing(folder / PICTURE):
        shutil.copyfile(folder / FOLDER / PICTURE, folder / PICTURE)


def attend_page(report: AttendReport) -> Page:
    """The page of a report."""
    text = [*change_sentences(report), *_TEXT]
    sections = [Section(title="Where the student looks", text=text, figures=[main_figure(report)])]
    if len(report.layers) > 1:
        sections.append(Section(title="Layer by layer", figures=layer_figures(report)))
    sections.append(Section(title="Numbers", tables=[*shares_tables(report), cells_table(report)]))
    return Page(
        title="Where a student looks",
        lead=lead(report),
        notice="This page contains the images. Share it only with people who may see them.",
        facts=_facts(report),
        sections=sections,
    )


def _facts(report: AttendReport) -> dict[str, object]:
    """What was run. Pages are passed on, so folders are named without their places, and images by their digests."""
    sizes = {
        image_title(report, number): f"SHA-256 {sha256_of(image.path)[:12]}…, {record.width} x {record.height} pixels, "
        f"{record.layout.tokens} tokens"
        for number, image in enumerate(report.images)
        for record in list(image.students.values())[:1]
    }
    aligned = [layer_title(report, layer).removeprefix("layer ") for layer in report.aligned_layers]
    return {
        "question": report.question,
        **sizes,
        "student": report.student,
        "adapters": ", ".join(report.images[0].adapters) or "none",
        "teacher store": report.store or "none",
        "prompt template": report.template,
        "layers": ", ".join(map(str, report.layers)),
        "aligned layers": ", ".join(aligned) or "none",
    }


def lead(report: AttendReport) -> str:
    """The finding in one sentence."""
    parts = []
    for number, image in enumerate(report.images):
        several = len(image.students) > 1
        shares = [
            percent(record.mean_share) + (f" ({name})" if several else "") for name, record in image.students.items()
        ]
        on = "the image" if len(report.images) == 1 else f"image {number + 1}"
        parts.append(f"{listed(shares, len(shares))} on {on}")
    one = len(report.layers) == 1
    layers = f"at {layer_title(report, report.layers[0])}" if one else f"mean over {len(report.layers)} layers"
    return f'Attention of the question "{report.question}", {layers}: {"; ".join(parts)}.'


def shares_tables(report: AttendReport) -> list[Table]:
    """The share of attention on each image, that of padding, and with a store the distance to the teacher.

    They are given by layer and for the mean map, in columns of one table, or a table each if that would be too wide for
    a page.
    """
    shares: dict[str, list[float]] = {}
    padding: dict[str, list[float]] = {}
    distances: dict[str, list[float]] = {}
    for number, image in enumerate(report.images):
        start = "" if len(report.images) == 1 else f"{image_title(report, number)}, "
        for name, record in image.students.items():
            shares[f"{start}{name}, %"] = [100 * share for share in (*record.shares, record.mean_share)]
            if record.has_padding:
                parts = (*record.padding_shares, record.padding_share)
                padding[f"{start}{name}, on padding, %"] = [100 * share for share in parts]
            by_layer = None if image.teacher is None else image.teacher.divergence(record)
            of_mean = None if image.teacher is None else image.teacher.mean_divergence(record)
            if by_layer is not None and of_mean is not None:
                distances[f"{start}{name}, KL to teacher"] = [*by_layer.values(), of_mean]
    named = {_ON_IMAGE: shares, _ON_PADDING: padding, _DISTANCE: distances}
    filled = {title: columns for title, columns in named.items() if columns}
    if sum(map(len, filled.values())) > _MOST_COLUMNS:
        return [_by_layer(report, title[0].upper() + title[1:], columns) for title, columns in filled.items()]
    return [_by_layer(report, "; ".join(filled), shares | padding | distances)]


def _by_layer(report: AttendReport, title: str, columns: Mapping[str, Sequence[float]]) -> Table:
    names = [*(layer_title(report, layer) for layer in report.layers), "mean map"]
    rows = [[name, *(column[place] for column in columns.values())] for place, name in enumerate(names)]
    return Table(columns=["layer", *columns], rows=rows, caption=f"{title}. {_LAST_ROW}")


def cells_table(report: AttendReport, count: int = 5) -> Table:
    """The most attended cells of each image."""
    rows: list[list[object]] = []
    for number, image in enumerate(report.images):
        for name, record in image.students.items():
            rows += [
                [image_title(report, number), name, place(cell, record), percent(cell.share)]
                for cell in record.top_cells(count)
            ]
    return Table(
        columns=["image", "student", "place, pixels", "share of the attention on the image"],
        rows=rows,
        caption="The cells with most attention, in the mean over layers",
    )
