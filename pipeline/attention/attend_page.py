"""The page of `medalign student attend`."""

from pathlib import Path

from ...atomic import write_whole
from ...progress import Progress
from ..reports.figures.figure_files import write_figures
from ..reports.page import REPORT_FILE, Page, Section, Table, render_page
from .attend_figures import attend_figures, image_title, layer_title, percent, place
from .attend_report import AttendReport

_TEXT = (
    "The picture shows how much attention each image token gets from the question: the mean over all heads, and over "
    "all text tokens between the image and the answer, which include words of the prompt template. It is read while "
    "the student reads the prompt, before it answers.",
    "Attention says from which image tokens a layer reads. It does not say that the answer follows from them: some "
    "tokens, often at the border, get attention in every image, and earlier layers have already mixed each token with "
    "others.",
)


def write_attention(folder: Path, report: AttendReport, progress: Progress) -> None:
    """Write the figures and the page into a folder.

    Raises:
        MedalignError: A file cannot be written.
    """
    figures = attend_figures(report)
    pictures = write_figures(folder, figures, progress)
    sections = [
        Section(title=figure.title, text=_TEXT if number == 0 else (), figures=[figure])
        for number, figure in enumerate(figures)
    ]
    page = Page(
        title="Where a student looks",
        lead=lead(report),
        notice="This page contains the images. Share it only with people who may see them.",
        facts={
            "question": report.question,
            "prompt template": report.template,
            "layers": f"{len(report.layers)}, aligned: {', '.join(map(str, report.aligned_layers)) or 'none'}",
            **{
                image_title(
                    report, number
                ): f"{image.picture.width} x {image.picture.height} pixels, {first.layout.tokens} tokens"
                for number, image in enumerate(report.images)
                for first in [next(iter(image.students.values()))]
            },
        },
        sections=[*sections, Section(title="Numbers", tables=[shares_table(report), cells_table(report)])],
    )
    write_whole(folder / REPORT_FILE, render_page(page, pictures))


def lead(report: AttendReport) -> str:
    """The finding in one sentence."""
    parts = []
    for number, image in enumerate(report.images):
        several = len(image.students) > 1
        shares = [
            percent(record.mean_share) + (f" ({name})" if several else "") for name, record in image.students.items()
        ]
        parts.append(f"{' and '.join(shares)} on {'the image' if len(report.images) == 1 else f'image {number + 1}'}")
    return f"The question's attention, in the mean over {len(report.layers)} layers: {'; '.join(parts)}."


def shares_table(report: AttendReport) -> Table:
    """The share of attention on each image, by layer; with a store also the distance to the teacher."""
    columns, values = ["layer"], []
    for number, image in enumerate(report.images):
        start = "" if len(report.images) == 1 else f"{image_title(report, number)}, "
        for name, record in image.students.items():
            columns.append(f"{start}{name}")
            values.append([100 * share for share in (*record.shares, record.mean_share)])
            distances = image.teacher and image.teacher.divergence(record)
            if distances:
                columns.append(f"{start}{name}: KL to teacher, nats")
                values.append([*distances.values(), sum(distances.values()) / len(distances)])
    names = [*(layer_title(report, layer) for layer in report.layers), "mean"]
    rows = [[name, *(column[place] for column in values)] for place, name in enumerate(names)]
    return Table(columns=columns, rows=rows, caption="Share of the question's attention on the image, %")


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
