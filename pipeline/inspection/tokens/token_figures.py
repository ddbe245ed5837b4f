"""Figures of image tokens: projections by region or organ, silhouettes and agreement over the stages."""

from collections.abc import Iterator, Sequence

import polars as pl

from ....student.inspection.token_capture import PROJECTOR, TEACHER, TOWER
from ...reports.figures.figure import Figure
from ...reports.figures.lines import lines
from ...reports.figures.points import points
from ..stage_names import AXIS, stage_place, stage_title
from .agreement_curves import StageAgreement
from .cluster_measures import PERPLEXITY
from .token_study import METHODS, NamedTokens, Projection, StageClusters

_ENDS = (TEACHER, TOWER, PROJECTOR)


def projection_figures(
    tokens: NamedTokens, kind: str, projections: Sequence[Projection], clusters: Sequence[StageClusters]
) -> list[Figure]:
    """For each method: the tokens that enter the language model beside the teacher's, and those at its layers."""
    return [
        figure
        for method in METHODS
        for figure in _of_method(tokens, kind, [plane for plane in projections if plane.method == method], clusters)
    ]


def silhouette_figure(kind: str, clusters: Sequence[StageClusters]) -> Figure:
    """The mean silhouette over the stages, a line for each arm; the teacher's is level."""
    own = [found for found in clusters if found.stage != TEACHER]
    rows = [
        {"panel": "", "series": found.arm, "x": stage_place(found.stage), "y": found.mean.mean,
         "low": found.mean.low, "high": found.mean.high}
        for found in own
    ]  # fmt: skip
    rows += _level(clusters, sorted({stage_place(found.stage) for found in own}))
    ends = "; ".join(_ends(arm, [found for found in own if found.arm == arm]) for arm in _arms(own))
    return lines(
        name="tokens-silhouette",
        title=f"How well tokens separate by {kind}",
        caption=f"Mean silhouette of tokens by {kind} (cosine distance in their own space; 1: separate clusters, "
        f"below 0: nearer to another name). Bands: 95 % intervals over images. {ends}.",
        alt=f"Mean silhouette by {kind}: {ends}.",
        points=pl.DataFrame(rows, infer_schema_length=None),
        x_label=AXIS,
        y_label="mean silhouette",
    )


def agreement_figure(found: Sequence[StageAgreement]) -> Figure:
    """Agreement of S with the teacher over the stages, a line for each arm."""
    rows = [
        {"panel": "", "series": item.arm, "x": stage_place(item.stage), "y": item.mean.mean,
         "low": item.mean.low, "high": item.mean.high}
        for item in found
    ]  # fmt: skip
    best = []
    for arm in dict.fromkeys(item.arm for item in found):
        item = max((item for item in found if item.arm == arm), key=lambda item: item.mean.mean)
        best.append(f"{arm} {item.mean.mean:.2f} at the {stage_title(item.stage)}")
    return lines(
        name="tokens-agreement",
        title="Agreement of token similarities with the teacher's",
        caption="Pearson correlation of the similarities S (Eq. 3) of the student's tokens with those of the teacher's "
        f"E_v, within images. Bands: 95 % intervals over images. Highest: {'; '.join(best)}.",
        alt=f"Highest agreement of the similarities with the teacher's: {'; '.join(best)}.",
        points=pl.DataFrame(rows, infer_schema_length=None),
        x_label=AXIS,
        y_label="correlation of S",
    )


def _of_method(
    tokens: NamedTokens, kind: str, planes: Sequence[Projection], clusters: Sequence[StageClusters]
) -> Iterator[Figure]:
    if not planes:
        return
    ends = sorted((plane for plane in planes if plane.stage in _ENDS), key=lambda plane: _ENDS.index(plane.stage))
    layers = [plane for plane in planes if plane.stage not in _ENDS]
    columns = len({plane.stage for plane in layers})
    yield _points(tokens, kind, ends, clusters, "inputs", "Tokens before the language model, and the teacher's", 3)
    if layers:
        yield _points(tokens, kind, layers, clusters, "layers", "Tokens in the language model", columns)


def _points(
    tokens: NamedTokens,
    kind: str,
    planes: Sequence[Projection],
    clusters: Sequence[StageClusters],
    part: str,
    title: str,
    columns: int,
) -> Figure:
    method = planes[0].method
    table = pl.concat(
        pl.DataFrame(
            {
                "x": plane.points[:, 0],
                "y": plane.points[:, 1],
                "group": [tokens.names[label] for label in tokens.labels],
            }
        ).select(pl.lit(_panel(plane)).alias("panel"), pl.all())
        for plane in planes
    )
    measured = {(found.arm, found.stage): found for found in clusters}
    notes = {_panel(plane): _note(plane, measured.get((plane.arm, plane.stage))) for plane in planes}
    told = "; ".join(f"{_panel(plane)} {measured[plane.arm, plane.stage].mean.mean:.2f}" for plane in planes)
    how = f"t-SNE with perplexity {PERPLEXITY:g}" if method == "t-SNE" else "Two principal components"
    return points(
        name=f"tokens-{method.lower().replace('-', '')}-{part}",
        title=f"{title}: {method}",
        caption=f"{how} of {len(tokens.labels):,} tokens by {kind}. A plane can show clusters that are not there, and "
        "hide others: the silhouette and the between/within scatter of the tokens' own space are beside those of the "
        "plane.",
        alt=f"{method} of image tokens by {kind}. Mean silhouettes in the tokens' own space: {told}.",
        points=table,
        notes=notes,
        columns=columns,
    )


def _panel(plane: Projection) -> str:
    title = stage_title(plane.stage)
    return title if plane.stage == TEACHER else f"{plane.arm}: {title}"


def _note(plane: Projection, found: StageClusters | None) -> str:
    own = "" if found is None else f"silhouette {found.mean.mean:.3f}, scatter {found.scatter:.2f}; "
    return f"{own}in the plane {plane.silhouette:.3f}, {plane.scatter:.2f}"


def _level(clusters: Sequence[StageClusters], places: Sequence[int]) -> list[dict[str, object]]:
    """The teacher's silhouette as a level line."""
    return [
        {"panel": "", "series": "teacher's E_v", "x": place, "y": found.mean.mean, "low": found.mean.low,
         "high": found.mean.high}
        for found in clusters if found.stage == TEACHER
        for place in places
    ]  # fmt: skip


def _arms(clusters: Sequence[StageClusters]) -> list[str]:
    return list(dict.fromkeys(found.arm for found in clusters))


def _ends(arm: str, clusters: Sequence[StageClusters]) -> str:
    first, last = clusters[0], clusters[-1]
    return (
        f"{arm}: {first.mean.mean:.3f} at the {stage_title(first.stage)}, {last.mean.mean:.3f} at the "
        f"{stage_title(last.stage)}"
    )
