"""The figures of `medalign student attend`."""

import math
from collections.abc import Iterator
from typing import Final

import polars as pl

from ...student.inputs.views import inside
from ...student.inspection.image_attention import AttendedCell, ImageAttention
from ..reports.figures.figure import Figure, figure_name
from ..reports.figures.lines import lines
from ..reports.figures.overlays import Overlay, map_views, overlays
from ..reports.runs.wording import listed
from .attend_report import AttendedImage, AttendReport

MAIN: Final = "attention"
"""Name of the main figure."""
_MOST_COLUMNS: Final = 6
_LAYER_COLUMNS: Final = 8
_LAYER_WIDTH: Final = 1.6
"""In inches."""


def main_figure(report: AttendReport) -> Figure:
    """The mean over layers, and the aligned layers."""
    rows = [list(_main_panels(report, number, image)) for number, image in enumerate(report.images)]
    found = ". ".join(_finding(report, number, image) for number, image in enumerate(report.images))
    return overlays(
        name=MAIN,
        title=_main_title(report),
        caption="Attention from the question to the image tokens, mean over heads and question tokens. The colors of "
        f"each panel run from its own smallest to its largest value, so only the numbers compare panels. "
        f"{_about_marks(report)} {found}.",
        alt=f"{found}.",
        panels=[panel for row in rows for panel in row],
        columns=_main_columns(len(rows[0]), len(rows)),
    )


def layer_figures(report: AttendReport) -> list[Figure]:
    """Every layer of each image, and the share of attention on the image by layer."""
    return [*(_layers(report, number, image) for number, image in enumerate(report.images)), _shares(report)]


def percent(share: float) -> str:
    """A share as text with three digits, such as `12.3 %`."""
    return f"{100 * share:.3g} %"


def place(cell: AttendedCell, record: ImageAttention) -> str:
    """Where a cell is, in pixels of the image."""
    box = inside(cell.box, record.width, record.height)
    if box is None:
        return "in the padding"
    x, y, width, height = box
    digits = 0 if min(cell.box[2:]) >= 2 else 2  # cells of tiny images are smaller than a pixel
    return f"x {x:.{digits}f} to {x + width:.{digits}f}, y {y:.{digits}f} to {y + height:.{digits}f}"


def image_title(report: AttendReport, number: int) -> str:
    """The name of an image in figures: its number, because names of files may identify patients."""
    return "image" if len(report.images) == 1 else f"image {number + 1}"


def layer_title(report: AttendReport, layer: int) -> str:
    """A layer's number, and in which students it was aligned."""
    students = report.images[0].students
    aligned = [name for name, record in students.items() if layer in record.aligned_layers]
    if not aligned:
        return f"layer {layer}"
    where = "" if len(aligned) == len(students) else f" in {listed(aligned, len(aligned))}"
    return f"layer {layer} (aligned{where})"


def _own_title(record: ImageAttention, layer: int) -> str:
    """A layer's number, and whether it was aligned in this student."""
    return f"layer {layer} (aligned)" if layer in record.aligned_layers else f"layer {layer}"


def _about_marks(report: AttendReport) -> str:
    where = f"mean of {len(report.layers)} layers" if len(report.layers) > 1 else "attention"
    return f"In each panel with the {where}, a black and white outline marks the most attended cell."


def _main_title(report: AttendReport) -> str:
    if len(report.layers) == 1:
        return f"L{layer_title(report, report.layers[0])[1:]}"
    aligned = {0: "", 1: ", and the aligned layer"}.get(len(report.aligned_layers), ", and the aligned layers")
    return f"Mean over {len(report.layers)} layers{aligned}"


def _main_panels(report: AttendReport, number: int, image: AttendedImage) -> Iterator[Overlay]:
    """The image, the teacher's attention, and every student's in the mean over layers and at the aligned layers."""
    yield Overlay(title=image_title(report, number), image=image.picture)
    if image.teacher is not None:
        views = map_views(image.teacher.layout, image.teacher.E_a.tolist())
        yield Overlay(title=f"teacher {image.teacher.name}", image=image.picture, views=views)
    for name, record in image.students.items():
        mean = len(record.layers) > 1
        title = (
            f"{name}, mean of {len(record.layers)} layers"
            if mean
            else f"{name}, {_own_title(record, record.layers[0])}"
        )
        yield Overlay(
            title=title,
            image=image.picture,
            views=map_views(record.layout, record.mean.tolist()),
            note=f"{percent(record.mean_share)} on the image{_padding(record)}",
            marked=record.top_cells(1)[0].box,
        )
    if len(report.layers) > 1:
        yield from _layer_panels(image, report.aligned_layers)


def _main_columns(panels: int, images: int) -> int:
    """Panels side by side: rows of nearly equal length, and a new row for each image."""
    columns = math.ceil(panels / math.ceil(panels / _MOST_COLUMNS))
    return panels if images > 1 and panels % columns else columns


def _layers(report: AttendReport, number: int, image: AttendedImage) -> Figure:
    title = image_title(report, number)
    found = _range(report, number, image)
    return overlays(
        name=figure_name(f"layers {title.removeprefix('image')}"),
        title="Each layer" if len(report.images) == 1 else f"Each layer, {title}",
        caption="Attention at each layer, with the share of it that is on the image. Each panel has its own colors. "
        f"{found}.",
        alt=f"Attention at {len(report.layers)} layers. {found}.",
        panels=list(_layer_panels(image, report.layers)),
        columns=len(image.students) * max(1, _LAYER_COLUMNS // len(image.students)),  # each student below itself
        panel_width=_LAYER_WIDTH,
    )


def _layer_panels(image: AttendedImage, layers: tuple[int, ...]) -> Iterator[Overlay]:
    for layer in layers:
        for name, record in image.students.items():
            index = record.layers.index(layer)
            yield Overlay(
                title=f"{name}, {_own_title(record, layer)}",
                image=image.picture,
                views=map_views(record.layout, record.maps[index].tolist()),
                note=f"{percent(record.shares[index])} on the image",
            )


def _shares(report: AttendReport) -> Figure:
    rows = [
        {
            "panel": image_title(report, number) if len(report.images) > 1 else "",
            "series": name,
            "x": layer,
            "y": 100 * share,
        }
        for number, image in enumerate(report.images)
        for name, record in image.students.items()
        for layer, share in sorted(zip(record.layers, record.shares, strict=True))
    ]
    found = ". ".join(_range(report, number, image) for number, image in enumerate(report.images))
    return lines(
        name="shares",
        title="Share of attention on the image",
        caption=f"The part of the question's attention that is on the image; the rest is on text. {found}.",
        alt=f"{found}.",
        points=pl.DataFrame(rows),
        x_label="decoder layer",
        y_label="share on the image, %",
    )


def _range(report: AttendReport, number: int, image: AttendedImage) -> str:
    """The least and the largest share of each student, in words."""
    parts = []
    for name, record in image.students.items():
        pairs = sorted(zip(record.shares, record.layers, strict=True))
        least, most = (f"{percent(share)} at layer {layer}" for share, layer in (pairs[0], pairs[-1]))
        parts.append(f"from {least} to {most} ({name})")
    return f"On the {image_title(report, number)}: {', '.join(parts)}"


def _finding(report: AttendReport, number: int, image: AttendedImage) -> str:
    parts = []
    for name, record in image.students.items():
        cell = place(record.top_cells(1)[0], record)
        parts.append(f"{percent(record.mean_share)}{_padding(record)}; its most attended cell is at {cell} ({name})")
    return f"Attention on the {image_title(report, number)}: {'; '.join(parts)}"


def _padding(record: ImageAttention) -> str:
    share = record.padding_share
    return f", {percent(share)} of it on padding" if share else ""
