"""Attention over images at one layer, with the regions that the questions are about drawn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from ....errors import InputError
from ....student.file_errors import is_file, reading
from ....student.inputs.views import square_layout
from ...data.annotations.region_masks import region_pixels
from ...data.regions import read_regions
from ...evaluation.grounding.attention_maps import MAPS_FILE
from ..figures.figure import Figure
from ..figures.overlays import MapView, Outline, Overlay, overlays
from .grounding_figures import SavedGrounding
from .run_questions import RunQuestions
from .wording import percent

SHOWN: Final = 4
"""At most so many questions with the most attention inside their region, and with the least."""


def overlay_figures(out: Path, saved: SavedGrounding, table: pl.DataFrame, questions: RunQuestions) -> list[Figure]:
    """Attention over the images of the questions with the most and the least attention inside their regions.

    Questions are ranked by the attention inside minus what uniform attention has there, because it depends on the
    region's size. No two questions of a figure have the same image.

    Raises:
        InputError: attention.npy is missing, or has another shape than the run.
    """
    if saved.grid is None or not questions.rows:
        return []
    ranked = _ranked(table, saved.layer)
    maps = _maps(out, saved)
    number = min(SHOWN, math.ceil(ranked["image_hash"].n_unique() / 2))
    most = _distinct(ranked.reverse(), (), number)
    least = _distinct(ranked, [row["image_hash"] for row in most], number)
    drawn = []
    for name, rows in (("most", most), ("least", least)):
        panels = [_panel(row, maps[row["index"], saved.layer], saved, questions) for row in rows]
        shown = [(row, panel) for row, panel in zip(rows, panels, strict=True) if panel is not None]
        if shown:
            drawn.append(_figure(name, saved, [row for row, _ in shown], [panel for _, panel in shown]))
    return drawn


def _ranked(table: pl.DataFrame, layer: int) -> pl.DataFrame:
    """The questions of one layer with their index in attention.npy, the least attention inside first."""
    rows = table.filter(pl.col("layer") == layer).with_row_index("index")
    return rows.filter(pl.col("mass").is_not_null()).sort(pl.col("mass") - pl.col("mass_chance"), maintain_order=True)


def _distinct(rows: pl.DataFrame, taken: Sequence[str], number: int) -> list[dict[str, Any]]:
    """The first questions about distinct images that are not `taken`."""
    left = rows.filter(~pl.col("image_hash").is_in(taken)).unique("image_hash", keep="first", maintain_order=True)
    return left.head(number).to_dicts()


def _maps(out: Path, saved: SavedGrounding) -> np.ndarray:
    path = out / MAPS_FILE
    if not is_file(path):
        raise InputError(f"{out} has no {MAPS_FILE}: copy the complete folder")
    with reading(path):
        maps: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    assert saved.grid is not None
    shape = (saved.questions, len(saved.layers), saved.grid.patches)
    if maps.shape != shape:
        raise InputError(f"{path} has shape {maps.shape}, but the run has {shape}: copy the complete folder again")
    return maps


def _panel(
    row: dict[str, Any], attention: np.ndarray, saved: SavedGrounding, questions: RunQuestions
) -> Overlay | None:
    image = questions.image(row["question_id"], row["image_hash"])
    if image is None:
        return None
    assert saved.grid is not None
    views = square_layout(*image.size, saved.grid).views
    return Overlay(
        title=row["question"],
        image=image,
        views=tuple(
            MapView(rows=view.rows, columns=view.columns, box=view.box, values=view.on_grid(attention).ravel().tolist())
            for view in views
        ),
        outlines=_outlines(row, questions, *image.size),
        note=f"inside {percent(row['mass'])}, uniform {percent(row['mass_chance'])}",
    )


def _outlines(row: dict[str, Any], questions: RunQuestions, width: int, height: int) -> tuple[Outline, ...]:
    """The measured regions of a question; those whose mask cannot be read are left out."""
    known = questions.rows[row["question_id"]]
    hashes = {item["mask"]: item["mask_hash"] for item in known["mask_hashes"]}
    found: list[Outline] = []
    for region in read_regions(known["regions"]):
        if region.name not in row["regions"]:
            continue
        if region.mask is None:
            found.append(Outline(name=region.name, box=region.box))
            continue
        try:
            pixels = region_pixels([region], questions.root, width, height, hashes)
        except InputError:
            continue
        found.append(Outline(name=region.name, mask=pixels.numpy() > 0))
    return tuple(found)


def _figure(name: str, saved: SavedGrounding, rows: Sequence[dict[str, Any]], panels: Sequence[Overlay]) -> Figure:
    said = ", ".join(f"{percent(row['mass'])} for {' and '.join(row['regions'])}" for row in rows)
    return overlays(
        name=f"overlays-{name}",
        title=f"{name.capitalize()} attention inside the region, compared with its size, at {saved.layer_name}",
        caption="Brighter: more attention; the colors of every panel run from its own smallest to its largest value. "
        "Outlines: the regions that the question is about.",
        alt=f"Attention over {len(rows)} images with outlined regions. Inside: {said}.",
        panels=panels,
    )
