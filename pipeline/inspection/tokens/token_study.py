"""Clusters of image tokens by region or organ: at every stage of every arm, and at the teacher.

n tokens, K images, P chosen patches per image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from ....progress import Progress
from ....student.inspection.token_capture import PIXELS, PROJECTOR, TEACHER, TOWER, StageTokens, layer_stage
from ...evaluation.statistics import Difference, paired_difference
from ..cell_labels import UNNAMED, CellLabels
from ..number_text import change_text
from .cluster_measures import project_pca, project_tsne, scatter_ratio, token_silhouettes

MOST_TOKENS = 1500
METHODS = ("t-SNE", "PCA")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class NamedTokens:
    """The tokens that are drawn and measured; the same at every stage."""

    names: tuple[str, ...]
    images: Int[np.ndarray, " tokens"]
    places: Int[np.ndarray, " tokens"]
    """Index among the chosen patches of its image."""
    labels: Int[np.ndarray, " tokens"]

    def of(self, stage: StageTokens) -> Float[np.ndarray, "tokens width"]:
        return np.asarray(stage.tokens[self.images, self.places])


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StageClusters:
    """How tokens separate by name at one stage."""

    arm: str
    """Name of the arm, or `teacher`."""
    stage: str
    silhouettes: Float[np.ndarray, " tokens"]
    mean: Difference
    """Mean silhouette with a 95 % interval over images; the distances to tokens of all images are kept."""
    scatter: float
    """Between / within."""
    change: Difference | None
    """Of the mean silhouette from the base, paired over images; `None` for the base and the teacher."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Projection:
    """Tokens of one stage in a plane, and how they separate there."""

    arm: str
    stage: str
    method: str
    """`t-SNE` or `PCA`."""
    points: Float[np.ndarray, "tokens 2"]
    silhouette: float
    scatter: float


def choose_tokens(cells: CellLabels, *, seed: int, most: int = MOST_TOKENS) -> NamedTokens | None:
    """Draw at most `most` named tokens; `None` if there are not two names with two tokens each."""
    images, places = np.nonzero(cells.labels != UNNAMED)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(images))[:most])
    images, places = images[drawn], places[drawn]
    labels = cells.labels[images, places]
    numbers, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, numbers[counts >= 2])
    if len(np.unique(labels[kept])) < 2:
        return None
    return NamedTokens(names=cells.names, images=images[kept], places=places[kept], labels=labels[kept])


def shown_stages(stages: Sequence[str], aligned: Iterable[int]) -> tuple[str, ...]:
    """Stages with a picture: tower, projector, the first layer after them, the aligned layers, and the last layer.

    Without aligned layers, the layer in the middle.
    """
    layers = [name for name in stages if name not in (PIXELS, TEACHER, TOWER, PROJECTOR)]
    middle = [layer_stage(layer) for layer in sorted(set(aligned))] or layers[len(layers) // 2 :][:1]
    wanted = {TOWER, PROJECTOR, *layers[:1], *middle, *layers[-1:]}
    return tuple(name for name in stages if name in wanted)


def measure_clusters(
    tokens: NamedTokens,
    arm: str,
    stages: Sequence[StageTokens],
    base: Mapping[str, StageClusters],
    *,
    seed: int,
    progress: Progress,
) -> list[StageClusters]:
    """Measure every stage of an arm but the pixels; `base` has the base's clusters by stage, empty for the base."""
    progress.start("measuring clusters", len(stages))
    found = []
    groups = [str(image) for image in tokens.images]
    for stage in stages:
        if stage.name != PIXELS:
            values = tokens.of(stage)
            silhouettes = token_silhouettes(values, tokens.labels)
            before = base.get(stage.name)
            change = None
            if before is not None:
                change = paired_difference(before.silhouettes.tolist(), silhouettes.tolist(), groups, seed=seed)
            mean = paired_difference([0.0] * len(groups), silhouettes.tolist(), groups, seed=seed)
            found.append(
                StageClusters(
                    arm=arm,
                    stage=stage.name,
                    silhouettes=silhouettes,
                    mean=mean,
                    scatter=scatter_ratio(values, tokens.labels),
                    change=change,
                )
            )
        progress.advance()
    return found


def project_stages(
    tokens: NamedTokens, arm: str, stages: Sequence[StageTokens], *, seed: int, progress: Progress
) -> list[Projection]:
    """Project the tokens of stages to a plane with every method."""
    progress.start("projecting tokens", len(stages) * len(METHODS))
    found = []
    for stage in stages:
        values = tokens.of(stage)
        for method in METHODS:
            points = project_pca(values) if method == "PCA" else project_tsne(values, seed=seed)
            found.append(
                Projection(
                    arm=arm,
                    stage=stage.name,
                    method=method,
                    points=points,
                    silhouette=float(token_silhouettes(points, tokens.labels, plane=True).mean()),
                    scatter=scatter_ratio(points, tokens.labels, plane=True),
                )
            )
            progress.advance()
    return found


def cluster_table(clusters: Sequence[StageClusters], projections: Sequence[Projection]) -> pl.DataFrame:
    """One row per arm and stage: silhouette and scatter of the tokens, and those of their projections."""
    planes = {(plane.arm, plane.stage, plane.method): plane for plane in projections}
    rows = []
    for found in clusters:
        row: dict[str, object] = {
            "arm": found.arm,
            "stage": found.stage,
            "silhouette": found.mean.mean,
            "low": found.mean.low,
            "high": found.mean.high,
            "scatter": found.scatter,
            "change": None if found.change is None else found.change.mean,
            "change_low": None if found.change is None else found.change.low,
            "change_high": None if found.change is None else found.change.high,
        }
        for method in METHODS:
            plane = planes.get((found.arm, found.stage, method))
            key = method.lower().replace("-", "")
            row[f"{key}_silhouette"] = None if plane is None else plane.silhouette
            row[f"{key}_scatter"] = None if plane is None else plane.scatter
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def point_table(tokens: NamedTokens, projections: Sequence[Projection], images: Sequence[str]) -> pl.DataFrame:
    """Every drawn token of every projection: arm, stage, method, image_hash, name, x, y."""
    names = [tokens.names[label] for label in tokens.labels]
    hashes = [images[image] for image in tokens.images]
    return pl.concat(
        pl.DataFrame({"image_hash": hashes, "name": names, "x": plane.points[:, 0], "y": plane.points[:, 1]}).select(
            pl.lit(plane.arm).alias("arm"), pl.lit(plane.stage).alias("stage"), pl.lit(plane.method).alias("method"),
            pl.all(),
        )
        for plane in projections
    )  # fmt: skip


def cluster_sentence(clusters: Sequence[StageClusters], kind: str, arm: str, layers: Sequence[int]) -> str:
    """Whether clusters became clearer from the base to `arm`, at its aligned layers, and at the last layer."""
    by_stage = {found.stage: found for found in clusters if found.arm == arm}
    base = {found.stage: found for found in clusters if found.arm != arm}
    last = list(by_stage)[-1]
    stages = [name for name in dict.fromkeys([*map(layer_stage, layers), last]) if name in by_stage]
    parts = [_change_text(stage, base[stage], by_stage[stage]) for stage in stages]
    question = f"Do clusters of tokens by {kind} get clearer, as in the paper's Figures 1 and 5?"
    return f"{question} {arm} against base: {'; '.join(parts)}."


def _change_text(stage: str, before: StageClusters, after: StageClusters) -> str:
    change = after.change
    assert change is not None
    told = "no clearer and no less clear"
    if change.beyond_noise:
        told = "clearer" if change.mean > 0 else "less clear"
    return (
        f"{told} at the input of {stage} (silhouette {before.mean.mean:.3f} to {after.mean.mean:.3f}, "
        f"{change_text(change)})"
    )
