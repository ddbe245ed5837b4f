"""Means over questions, layer by layer, with intervals over images; and differences between two students."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ....errors import InputError
from ....student.metrics.result import MetricResult, mean_result
from ...data.manifest_images import image_groups
from ..statistics import Difference, Interval, bootstrap_difference, bootstrap_interval
from .measures import MEASURES

ALL_LAYERS = "all"
_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFinding:
    """One measure at one layer, or the mean over all layers."""

    layer: int | str
    """Zero-based, or `all`."""
    measure: str
    value: float | None
    interval: Interval | None
    """95 % interval over the choice of images."""
    other: float | None
    """The same regions with the attention to other images of the modality: the part independent of the image."""
    beyond_other: Difference | None
    """`value - other` over the questions that have both: the part that depends on the image."""
    change: Difference | None = None
    """Difference from the other student, on the same questions."""
    change_beyond: Difference | None = None
    """Change of `value - other`: whether more or less of the attention depends on the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingFindings:
    """The contents of the table of a run."""

    images: int
    chance: dict[str, float | None]
    """Expected value of uniform attention, by measure; `None` if it is undefined for all questions."""
    layers: tuple[LayerFinding, ...]

    def values(self) -> dict[str, Any]:
        return {"images": self.images, "chance": self.chance, "layers": [asdict(finding) for finding in self.layers]}

    def at(self, layer: int | str, measure: str) -> LayerFinding:
        return next(found for found in self.layers if (found.layer, found.measure) == (layer, measure))


def summarize_layers(table: pl.DataFrame) -> GroundingFindings:
    """Means and intervals of a table from `measure_layers`."""
    return _find(table, None)


def compare_layers(before: pl.DataFrame, after: pl.DataFrame) -> GroundingFindings:
    """The same for `after`, with its difference from `before`.

    Raises:
        InputError: The tables have other questions, regions or layers.
    """
    keys = ["question_id", "layer", "image_hash", "regions", "area"]
    if not before.select(keys).equals(after.select(keys)):
        raise InputError(
            f"the runs measured different things: {_size(before)} before, {_size(after)} now; run one again with "
            "the manifest, --split, --region and --limit of the other, and a student with as many layers and patches"
        )
    return _find(after, before)


def _size(table: pl.DataFrame) -> str:
    return f"{table['question_id'].n_unique()} questions at {table['layer'].n_unique()} layers"


def _find(table: pl.DataFrame, before: pl.DataFrame | None) -> GroundingFindings:
    first = table.filter(pl.col("layer") == 0)
    earlier = {} if before is None else dict(_by_layer(before))
    found = [
        _layer_finding(layer, measure.name, rows, earlier.get(layer))
        for layer, rows in _by_layer(table)
        for measure in MEASURES
    ]
    chance = {measure.name: _result(first, f"{measure.name}_chance").value for measure in MEASURES}
    return GroundingFindings(images=first["image_hash"].n_unique(), chance=chance, layers=tuple(found))


def _layer_finding(layer: int | str, measure: str, rows: pl.DataFrame, before: pl.DataFrame | None) -> LayerFinding:
    images = [group or "" for group in image_groups(rows["image_hashes"])]
    result, other = _result(rows, measure), _result(rows, f"{measure}_other")
    both = rows.with_columns(pl.when(pl.col(f"{measure}_other").is_not_null()).then(pl.col(measure)))
    change = change_beyond = None
    if before is not None:
        change = bootstrap_difference(_result(before, measure), result, images, seed=_SEED)
        change_beyond = bootstrap_difference(_beyond(before, measure), _beyond(rows, measure), images, seed=_SEED)
    return LayerFinding(
        layer=layer,
        measure=measure,
        value=result.value,
        interval=bootstrap_interval(result, images, seed=_SEED),
        other=other.value,
        beyond_other=bootstrap_difference(other, _result(both, measure), images, seed=_SEED),
        change=change,
        change_beyond=change_beyond,
    )


def _beyond(rows: pl.DataFrame, measure: str) -> MetricResult:
    return _result(rows.select(beyond=pl.col(measure) - pl.col(f"{measure}_other")), "beyond")


def _by_layer(table: pl.DataFrame) -> Iterator[tuple[int | str, pl.DataFrame]]:
    """The rows of each layer, then the mean over the layers for each question."""
    for layer in table["layer"].unique(maintain_order=True):
        yield int(layer), table.filter(pl.col("layer") == layer)
    names = [name for measure in MEASURES for name in (measure.name, f"{measure.name}_other")]
    yield (
        ALL_LAYERS,
        table.group_by("question_id", maintain_order=True).agg(pl.col("image_hashes").first(), pl.col(names).mean()),
    )


def _result(rows: pl.DataFrame, column: str) -> MetricResult:
    return mean_result(column, rows[column].to_list())
