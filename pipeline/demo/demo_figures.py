"""The figures of the demo's report: measures, losses, and attention on held-out images."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from torch import Tensor

from ...plain_text import signed_text
from ...student.inputs.collation import Sample
from ...student.inputs.views import square_layout
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.images.canonical import read_image
from ..data.phantoms.phantom_masks import load_masks
from ..reports.figures.bars import bars
from ..reports.figures.figure import Figure
from ..reports.figures.lines import lines
from ..reports.figures.overlays import Outline, Overlay, map_views, overlays
from ..training.loss_log import read_losses
from .demo import DemoReport
from .demo_arms import ARMS, LAYER
from .demo_results import MEASURES

_TERMS: Final = {"loss_lm": "answer loss, nats per token", "loss_vis": "L_vis", "loss_att": "L_att"}
IMAGES: Final = 3


def measures_figure(report: DemoReport) -> Figure:
    """The change of every measure from the baseline to each other arm, with its interval, in percent of its value."""
    rows: list[dict[str, Any]] = []
    findings = report.findings
    baseline = report.arms[findings.baseline]
    for measure in MEASURES:
        sign = 1 if measure.better == "higher" else -1
        scale = abs(baseline.mean(measure.name)) or 1.0
        for title, differences in findings.differences.items():
            gap = differences[measure.name]
            low, high = sorted((sign * gap.low / scale * 100, sign * gap.high / scale * 100))
            rows.append(
                {"panel": "", "group": measure.title.split(",")[0], "series": title}
                | {"value": sign * gap.mean / scale * 100, "low": low, "high": high}
            )
    words = "; ".join(
        f"{row['group']}, {row['series']}: {signed_text(row['value'], 0)} % "
        f"[{signed_text(row['low'], 0)}, {signed_text(row['high'], 0)}]"
        for row in rows
    )
    return bars(
        name="measures",
        title=f"What changed from {findings.baseline}",
        caption=f"Change in percent of the value of {findings.baseline}; upward is better for every measure, also for "
        "losses. The bars are 95 % intervals over test images: one that crosses zero is not a significant change.",
        alt=f"Change from {findings.baseline}, better is positive: {words}.",
        points=pl.DataFrame(rows),
        value_label="change for the better, %",
        from_zero=False,
    )


def losses_figure(report: DemoReport) -> Figure:
    """Curves of the loss terms of the three arms."""
    rows, ends = [], []
    for arm in ARMS:
        title, losses = arm.title, read_losses(report.out / "arms" / arm.name)
        for term, panel in _TERMS.items():
            points = losses.get(term, [])
            rows += [{"panel": panel, "series": title, "x": step, "y": value} for step, value in points]
            if points:
                ends.append(f"{title} {panel} {points[0][1]:.3g} to {points[-1][1]:.3g}")
    return lines(
        name="losses",
        title="Training",
        caption="Loss terms on training batches, from the first to the last step of training: "
        f"{'; '.join(ends)}. They compare an arm with itself, on images that it trains on; the numbers at the top of "
        f"the page compare {report.findings.baseline} with the others on test images after training. Without "
        "alignment, L_vis and L_att are not computed.",
        alt=f"From the first to the last logged step: {'; '.join(ends)}.",
        points=pl.DataFrame(rows, schema={"panel": pl.String, "series": pl.String, "x": pl.Int64, "y": pl.Float64}),
        x_label="step",
        y_label="loss",
    )


def attention_figure(report: DemoReport, samples: Sequence[Sample], grid: PatchGrid) -> Figure:
    """The teacher's and the students' attention on a few held-out images with lesions."""
    chosen = _with_lesions(report, samples)
    panels: list[Overlay] = []
    for place in chosen:
        panels += _panels(report, samples[place], place, grid)
    masses = {title: arm.mean("mass") for title, arm in report.arms.items()}
    reference = next(iter(report.arms.values())).reference["mass"]
    shares = ", ".join(f"{title} {value:.3f}" for title, value in masses.items())
    numbers = f"teacher {reference['teacher']:.3f}, {shares}, uniform attention {reference['chance']:.3f}"
    return overlays(
        name="attention",
        title=f"Where teacher and students look (layer {LAYER})",
        caption="Bright: more attention, in each picture from its smallest to its largest value. Outlines: lesions. "
        f"Share of the attention inside lesions, over all test questions: {numbers}.",
        alt=f"Attention on {len(chosen)} images with lesions. Share inside lesions: {numbers}.",
        panels=panels,
        columns=2 + len(report.arms),
    )


def _with_lesions(report: DemoReport, samples: Sequence[Sample]) -> list[int]:
    """Questions about different images with lesions, first where a lesion is; the first ones if no image has any."""
    mass = next(iter(report.arms.values())).values["mass"]
    seen: dict[str, int] = {}
    for place in sorted(np.flatnonzero(~np.isnan(mass)).tolist(), key=lambda place: _relevance(samples[place])):
        seen.setdefault(samples[place].images[0].image_hash, place)
    return [*seen.values()][:IMAGES] or list(range(min(IMAGES, len(samples))))


def _relevance(sample: Sample) -> int:
    """0 for a question about the place of a lesion, 1 for another one about lesions, else 2."""
    question = sample.question.lower()
    return 2 if "lesion" not in question else 0 if "where" in question else 1


def _panels(report: DemoReport, sample: Sample, place: int, grid: PatchGrid) -> list[Overlay]:
    image = read_image(sample.images[0].path).rgb
    layout = square_layout(*image.size, grid)
    mask = load_masks(report.out / "phantoms" / "masks", sample.images[0].path.stem).lesions
    outlines = (Outline(name="lesion", mask=mask),) if mask.any() else ()
    maps: Mapping[str, Tensor] = {
        "teacher, E_a": next(iter(report.arms.values())).teacher_attention[place],
        **{title: arm.attention[place] for title, arm in report.arms.items()},
    }
    first = Overlay(title=sample.question, image=image, outlines=outlines)
    return [
        first,
        *(
            Overlay(title=title, image=image, views=map_views(layout, values.numpy()), outlines=outlines)
            for title, values in maps.items()
        ),
    ]
