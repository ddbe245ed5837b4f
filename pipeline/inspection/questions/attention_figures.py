"""Figures of attention in numbers: curves over layers, and mean maps over all images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import polars as pl

from ....student.inputs.views import ImageLayout
from ....student.metrics.attention_sinks import attention_shares
from ...evaluation.grounding.layer_statistics import ALL_LAYERS, GroundingFindings, LayerFinding
from ...reports.figures.figure import Figure
from ...reports.figures.lines import lines
from ...reports.figures.matrices import matrices
from ..number_text import percent
from .asked_questions import AskedQuestions
from .attention_measures import TEACHER, ArmAttention, AttentionFindings

_PANELS: Final = {"mass": "share inside the regions", "pointing": "pointing game: hits"}
_BEYOND: Final = "share inside, minus that of other images"
_SHARE_PANELS: Final = {
    "image": "of all attention: on the image",
    "sinks": "of that on the image: on sinks",
    "border": "of that on the image: on border tokens",
    "padding": "of that on the image: on padding",
}


def region_curves(found: AttentionFindings, aligned: Sequence[int]) -> Figure | None:
    """Measures inside annotated regions over the layers; None without regions."""
    rows = [row for name, arm in found.arms.items() if arm.regions for row in _region_rows(name, arm.regions)]
    if not rows:
        return None
    first = next(arm for arm in found.arms.values() if arm.regions is not None)
    assert first.regions is not None
    layers = sorted({row["x"] for row in rows})
    for measure, panel in _PANELS.items():
        if found.teacher is not None:
            rows += _flat(panel, f"{TEACHER} (E_a)", found.teacher.at(0, measure).value, layers)
        rows += _flat(panel, "chance", first.regions.chance[measure], layers)
    best = {name: arm.regions.at(ALL_LAYERS, "mass") for name, arm in found.arms.items() if arm.regions is not None}
    told = "; ".join(f"{name} {percent(mean.value, 1)}" for name, mean in best.items())
    chance = percent(first.regions.chance["mass"], 1)
    return lines(
        name="attention-regions",
        title="Attention on the regions that the questions are about",
        caption=f"By decoder layer{_aligned(aligned)}; bands: 95 % intervals over {first.regions.images} images. Mean "
        f"share inside over all layers: {told}; chance (the area of the regions): {chance}. Minus that of other "
        "images: the attention to other images of the same kind on the same regions is subtracted, so only what "
        "depends on the image is left.",
        alt=f"Mean share of the attention inside the annotated regions: {told}, with {chance} by chance.",
        points=pl.DataFrame(rows, infer_schema_length=None),
        x_label="decoder layer",
        y_label="share, or rate of hits",
    )


def share_curves(found: AttentionFindings, aligned: Sequence[int]) -> Figure:
    """Shares of the attention on the image, on sinks and on the border over the layers."""
    rows: list[dict[str, Any]] = []
    for share, panel in _SHARE_PANELS.items():
        for name, arm in found.arms.items():
            if share in arm.shares and _is_anywhere(found, share):
                rows += _share_rows(found, name, share, panel)
        if found.chance.get(share):
            rows += _flat(panel, "uniform attention", found.chance[share], range(_layers(found)))
    told = "; ".join(
        f"{name} {percent(float(arm.shares['image'][:, :-1].mean()), 1)}" for name, arm in found.arms.items()
    )
    return lines(
        name="attention-shares",
        title="Where attention goes that says nothing about the question",
        caption=f"By decoder layer{_aligned(aligned)}; bands: 95 % intervals over images. Of all attention of the "
        f"question tokens, the image gets in the mean over layers: {told}. {_sink_words(found)}",
        alt=f"Mean share of the question's attention that is on the image: {told}. {_sink_words(found)}",
        points=pl.DataFrame(rows, infer_schema_length=None),
        x_label="decoder layer",
        y_label="share of attention",
    )


def mean_maps(found: AttentionFindings, questions: AskedQuestions, layer: int) -> Figure:
    """The mean over all images of each arm's attention, at one layer and over all layers, on the grid of tokens."""
    layout = questions.layouts[0]
    panels = []
    for title, at in ((f"layer {layer}", layer), ("mean", -1)):
        for name, arm in found.arms.items():
            mean = attention_shares(arm.maps[:, at]).nanmean(dim=0) * layout.tokens
            panels += [(f"{name}, {title}{view}", grid) for view, grid in _grids(layout, mean.numpy())]
    brightest = max(float(grid.max()) for _, grid in panels)
    return matrices(
        name="attention-mean",
        title="Mean attention over all images",
        caption=f"1 is uniform attention; mean: over all layers. A cell that is bright here is bright on most of the "
        f"{len(questions.layouts)} images, whatever they show; the brightest has {brightest:.1f} times uniform "
        f"attention. {_sink_words(found)}",
        alt=f"Grids of mean attention; the brightest cell has {brightest:.1f} times the attention of a uniform map.",
        panels=panels,
        x_label="column of image tokens",
        y_label="row",
        value_label="times uniform attention",
    )


def _grids(layout: ImageLayout, values: Any) -> Iterator[tuple[str, Any]]:
    for number, view in enumerate(layout.views, start=1):
        yield ("" if len(layout.views) == 1 else f", view {number}"), view.on_grid(values)


def _region_rows(name: str, regions: GroundingFindings) -> Iterator[dict[str, Any]]:
    for finding in regions.layers:
        if finding.layer == ALL_LAYERS:
            continue
        if finding.measure in _PANELS:
            interval = finding.interval
            limits = None if interval is None else (interval.low, interval.high)
            yield _point(_PANELS[finding.measure], name, finding, finding.value, limits)
        if finding.measure == "mass" and finding.beyond_other is not None:
            beyond = finding.beyond_other
            yield _point(_BEYOND, name, finding, beyond.mean, (beyond.low, beyond.high))


def _point(
    panel: str, series: str, finding: LayerFinding, value: float | None, interval: tuple[float, float] | None
) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {"panel": panel, "series": series, "x": int(finding.layer), "y": value, "low": low, "high": high}


def _share_rows(found: AttentionFindings, name: str, share: str, panel: str) -> Iterator[dict[str, Any]]:
    for layer in range(_layers(found)):
        measured = found.mean_share(name, share, layer)
        assert measured is not None
        value, interval = measured
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        yield {"panel": panel, "series": name, "x": layer, "y": value, "low": low, "high": high}


def _flat(panel: str, series: str, value: float | None, layers: Sequence[int] | range) -> Iterator[dict[str, Any]]:
    """A line at the same height from the first layer to the last."""
    for layer in sorted({min(layers), max(layers)}):
        yield {"panel": panel, "series": series, "x": layer, "y": value, "low": None, "high": None}


def _layers(found: AttentionFindings) -> int:
    arm: ArmAttention = next(iter(found.arms.values()))
    return arm.maps.shape[1] - 1


def _is_anywhere(found: AttentionFindings, share: str) -> bool:
    """Whether there are sinks, or padding, at all."""
    if share == "sinks":
        return any(arm.sinks is not None and bool(arm.sinks.any()) for arm in found.arms.values())
    return found.chance.get(share, 1.0) > 0


def _sink_words(found: AttentionFindings) -> str:
    """How much attention is on sinks in the mean map of each arm."""
    parts: Mapping[str, tuple[int, float]] = {
        name: (int(arm.sinks[-1].sum()), float(arm.shares["sinks"][:, -1].nanmean()))
        for name, arm in found.arms.items()
        if arm.sinks is not None
    }
    if not parts:
        return "There are too few images to tell sinks from content."
    if not any(count for count, _ in parts.values()):
        return "No token is a sink in the mean map."
    told = "; ".join(f"{name} {count} with {percent(share, 1)}" for name, (count, share) in parts.items())
    return f"Sink tokens in the mean map: {told} of the attention on the image."


def _aligned(layers: Sequence[int]) -> str:
    if not layers:
        return ""
    return f" (aligned: {', '.join(map(str, layers))})"
