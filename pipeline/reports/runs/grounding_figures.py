"""Figures of a grounding run: measures over layers, and their change against another student."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ....plain_text import as_typed, counted
from ....saved_records import check_record
from ....student.file_errors import read_object
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ...evaluation.grounding.ground import FINDINGS_FILE
from ...evaluation.grounding.layer_statistics import ALL_LAYERS, GroundingFindings, LayerFinding
from ...evaluation.grounding.measures import MEASURES
from ..figures.figure import Figure
from ..figures.lines import lines
from .wording import percent

TITLES: Final = {"mass": "attention inside the region", "pointing": "pointing game", "energy_iou": "energy IoU"}
_NUMBERS: Final = {name: pl.Float64() for name in ("y", "low", "high")}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    questions: int
    left_out: dict[str, int]
    aligned_layers: tuple[int, ...]
    against: str | None
    grid: str | None = None
    warnings: tuple[str, ...] = ()
    """Of the terminal; empty for runs of earlier versions."""


_RECORD: Final = TypeAdapter(_Record)
_FINDINGS: Final = TypeAdapter(GroundingFindings)


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedGrounding:
    """grounding.json of a finished run."""

    questions: int
    left_out: Mapping[str, int]
    aligned_layers: tuple[int, ...]
    against: Path | None
    grid: PatchGrid | None
    """Grid of the image tokens; `None` for runs of earlier versions."""
    findings: GroundingFindings
    warnings: tuple[str, ...] = ()

    @property
    def layers(self) -> list[int]:
        return list(dict.fromkeys(found.layer for found in self.findings.layers if isinstance(found.layer, int)))

    @property
    def layer(self) -> int:
        """The layer that the page looks at: the first aligned one, else the middle one."""
        aligned = [layer for layer in self.aligned_layers if layer in self.layers]
        return aligned[0] if aligned else self.layers[len(self.layers) // 2]

    @property
    def layer_name(self) -> str:
        """How sentences call that layer."""
        return f"the aligned layer {self.layer}" if self.layer in self.aligned_layers else f"layer {self.layer}"

    def of(self, measure: str) -> Iterator[tuple[int, LayerFinding]]:
        """The findings of a measure, layer by layer."""
        return ((layer, self.findings.at(layer, measure)) for layer in self.layers)


def read_findings(out: Path) -> SavedGrounding:
    """Read the results of a finished run.

    Raises:
        InputError: They are missing or damaged.
    """
    path = out / FINDINGS_FILE
    values = read_object(path)
    then = f"Run `medalign student ground --resume --out {as_typed(out)}` with its other options to write it again"
    record = check_record(_RECORD, values, path, "results", then)
    parts = {name: values.get(name) for name in ("images", "chance", "layers")}
    return SavedGrounding(
        questions=record.questions,
        left_out=record.left_out,
        aligned_layers=record.aligned_layers,
        against=None if record.against is None else Path(record.against),
        grid=None if record.grid is None else PatchGrid.parse(record.grid),
        findings=check_record(_FINDINGS, parts, path, "results", then),
        warnings=record.warnings,
    )


def others_clause(saved: SavedGrounding, shared: int) -> str:
    """Which questions the means with other images are over; empty if it is all of them, or none."""
    if shared in (0, saved.questions):
        return ""
    return (
        f"Means with other images, and the differences from them, are over the {shared:,} of "
        f"{counted(saved.questions, 'question')} whose regions another image of the modality has too."
    )


def layers_figure(saved: SavedGrounding, shared: int) -> Figure:
    """Every measure over the layers, with what other images and uniform attention give.

    Args:
        saved: The results.
        shared: The number of questions whose regions another image has too.
    """
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        panel = TITLES[measure.name]
        for layer, found in saved.of(measure.name):
            low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
            rows.append(_row(panel, "this student", layer, found.value, low, high))
        if saved.against is not None:
            for layer, found in saved.of(measure.name):
                if found.value is not None and found.change is not None:
                    rows.append(_row(panel, f"before ({saved.against.name})", layer, found.value - found.change.mean))
        rows += [_row(panel, "attention to other images", at, found.other) for at, found in saved.of(measure.name)]
        chance = saved.findings.chance[measure.name]
        rows += [_row(panel, "uniform attention", layer, chance) for layer in saved.layers]
    rows = [row for row in rows if row["y"] is not None]
    mass = saved.findings.at(saved.layer, "mass")
    said = (
        f"at {saved.layer_name}, {percent(mass.value)} of the attention is inside, {percent(mass.other)} with the "
        f"attention to other images, {percent(saved.findings.chance['mass'])} with uniform attention"
    )
    regions = others_clause(saved, shared)
    note = f"{regions} {said[0].upper()}{said[1:]}" if regions else f"The regions are the same in all lines: {said}"
    return lines(
        name="layers",
        title="Attention on the annotated regions, layer by layer",
        caption=f"Bands: 95 % intervals over images. {note}.",
        alt=f"Curves over {len(saved.layers)} decoder layers: {said}.",
        points=pl.DataFrame(rows, schema_overrides=_NUMBERS),
        x_label="decoder layer (from 0)",
        y_label="mean over questions",
    )


def change_figure(saved: SavedGrounding) -> Figure | None:
    """The change of every measure against the other student; `None` without one."""
    rows: list[dict[str, Any]] = []
    for measure in MEASURES:
        panel = TITLES[measure.name]
        for series, name in (("change", "change"), ("change of the part that depends on the image", "change_beyond")):
            for layer, found in saved.of(measure.name):
                change = getattr(found, name)
                if change is not None:
                    rows.append(_row(panel, series, layer, change.mean, change.low, change.high))
        rows += [_row(panel, "no change", layer, 0.0) for layer in saved.layers]
    if saved.against is None or all(row["series"] == "no change" for row in rows):
        return None
    changed = [layer for layer, found in saved.of("mass") if found.change is not None and found.change.beyond_noise]
    said = f"the attention inside regions changed significantly at {len(changed)} of {len(saved.layers)} layers"
    return lines(
        name="change",
        title=f"Change from {saved.against.name}",
        caption=f"Bands: 95 % intervals over images, for each layer alone; {said}.",
        alt=f"Curves of the changes over the layers; {said}.",
        points=pl.DataFrame(rows, schema_overrides=_NUMBERS),
        x_label="decoder layer (from 0)",
        y_label="change",
    )


def layer_rows(saved: SavedGrounding) -> Iterator[list[Any]]:
    """Rows of a table: layer, then value, interval and other of every measure; the last row is chance."""
    layers: list[int | str] = [*saved.layers, ALL_LAYERS]
    for layer in layers:
        cells: list[Any] = []
        for measure in MEASURES:
            found = saved.findings.at(layer, measure.name)
            star = "*" if found.beyond_other is not None and found.beyond_other.beyond_noise else ""
            span = "" if found.interval is None else f" ({found.interval.low:.3f} to {found.interval.high:.3f})"
            cells += [_number(found.value) + star + span, _number(found.other)]
        yield [f"{layer} (aligned)" if layer in saved.aligned_layers else str(layer), *cells]
    chances = [cell for measure in MEASURES for cell in (_number(saved.findings.chance[measure.name]), "")]
    yield ["uniform attention", *chances]


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3f}"


def _row(
    panel: str, series: str, layer: int, y: float | None, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {"panel": panel, "series": series, "x": layer, "y": y, "low": low, "high": high}
