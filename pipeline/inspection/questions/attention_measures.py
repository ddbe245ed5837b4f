"""Numbers of attention for each arm: on the image, on sinks and the border, and inside annotated regions.

The maps of an arm are those of its L layers and, last, their mean. Q questions, L layers, T image tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ....progress import Progress
from ....student.metrics.attention_sinks import FEWEST_IMAGES, find_sinks, share_of_tokens
from ....student.metrics.result import mean_result
from ...data.manifest import Manifest
from ...evaluation.grounding.layer_statistics import GroundingFindings, compare_layers, summarize_layers
from ...evaluation.grounding.measures import MEASURES, measure_layers
from ...evaluation.statistics import Interval, bootstrap_interval
from .asked_questions import AskedQuestions, TeacherMaps
from .question_capture import ArmQuestions

TEACHER = "teacher"
SHARES = ("image", "sinks", "border", "padding")
"""Shares of the attention: of the question's on the image; of that on the image, the part on some tokens."""
_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ArmAttention:
    """The attention of one arm."""

    maps: Float[Tensor, "questions maps tokens"]
    """Every layer, then the mean over the layers; not normalized."""
    sinks: Bool[Tensor, "maps tokens"] | None
    """The sink tokens of each map; None if there are too few images."""
    shares: Mapping[str, Float[Tensor, "questions maps"]]
    """By name of `SHARES`, without `sinks` if there are too few images."""
    regions: GroundingFindings | None
    """Measures inside regions by layer; None without questions about regions. Changes are from the first arm."""
    mean_regions: GroundingFindings | None
    """The same for the mean map."""
    table: pl.DataFrame
    """One row per question and map."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AttentionFindings:
    """The attention of all arms, and of the teacher."""

    arms: Mapping[str, ArmAttention]
    teacher: GroundingFindings | None
    """Measures of E_a inside regions, as one layer; None without a store or without regions."""
    chance: Mapping[str, float]
    """Shares of uniform attention: the part of the tokens on the border, and in the padding."""
    table: pl.DataFrame

    def mean_share(self, arm: str, name: str, at: int) -> tuple[float, Interval | None] | None:
        """Mean share over the questions with its 95 % interval; `at` counts maps. None if it was not measured."""
        shares = self.arms[arm].shares.get(name)
        if shares is None:
            return None
        result = mean_result(name, shares[:, at].tolist())
        images = self.table.filter(pl.col("arm") == arm, pl.col("map") == "mean")["image_hash"].to_list()
        return (float("nan") if result.value is None else result.value), bootstrap_interval(result, images, seed=_SEED)


def measure_attention(
    questions: AskedQuestions, parts: Mapping[str, ArmQuestions], teacher: TeacherMaps | None, progress: Progress
) -> AttentionFindings:
    """Measure the attention of every arm; the first one is the base that the others are compared with.

    Raises:
        InputError: The mask of a region is missing or does not fit its image.
    """
    progress.start("measuring attention", len(parts))
    about = questions.with_regions
    coverage = torch.stack([questions.coverage(index) for index in about]) if about else None
    arms: dict[str, ArmAttention] = {}
    before: tuple[pl.DataFrame, pl.DataFrame] | None = None
    for name, part in parts.items():
        maps = with_mean(part.attention)
        regions = None if coverage is None else _region_tables(questions, maps[about].numpy(), coverage)
        arms[name] = _arm(name, questions, maps, regions, before)
        before = before or regions
        progress.advance()
    taught = None if teacher is None else _teacher_table(questions, about, teacher)
    tables = [arm.table for arm in arms.values()]
    if taught is not None:
        tables.append(_as_rows(taught, TEACHER, [TEACHER]))
    return AttentionFindings(
        arms=arms,
        teacher=None if taught is None else summarize_layers(taught),
        chance={
            "border": float(questions.border().double().mean()),
            "padding": float(questions.padding().double().mean()),
        },
        table=pl.concat(tables, how="diagonal_relaxed"),
    )


def with_mean(attention: Float[np.ndarray, "questions layers tokens"]) -> Float[Tensor, "questions maps tokens"]:
    """The maps of all layers, and their mean as the last one."""
    maps = torch.from_numpy(attention)
    return torch.cat([maps, maps.mean(dim=1, keepdim=True)], dim=1)


def map_names(count: int) -> list[str]:
    """Names of an arm's maps: `layer 0`, ..., `mean`."""
    return [*(f"layer {layer}" for layer in range(count - 1)), "mean"]


def _arm(
    name: str,
    questions: AskedQuestions,
    maps: Float[Tensor, "questions maps tokens"],
    regions: tuple[pl.DataFrame, pl.DataFrame] | None,
    before: tuple[pl.DataFrame, pl.DataFrame] | None,
) -> ArmAttention:
    sinks = find_sinks(maps) if len(maps) >= FEWEST_IMAGES else None
    shares = {
        "image": maps.sum(-1),
        "border": share_of_tokens(maps, questions.border()[:, None]),
        "padding": share_of_tokens(maps, questions.padding()[:, None]),
    }
    if sinks is not None:
        shares["sinks"] = share_of_tokens(maps, sinks)
    names = map_names(maps.shape[1])
    table = _shares_table(name, questions, names, shares)
    layers = means = None
    if regions is not None:
        if before is None:
            layers, means = summarize_layers(regions[0]), summarize_layers(regions[1])
        else:
            layers, means = compare_layers(before[0], regions[0]), compare_layers(before[1], regions[1])
        mean = regions[1].with_columns(layer=pl.lit(len(names) - 1, pl.Int32))
        measured = _as_rows(pl.concat([regions[0], mean]), name, names).drop("image_hash")
        table = table.join(measured, on=["arm", "map", "question_id"], how="left", maintain_order="left")
    return ArmAttention(maps=maps, sinks=sinks, shares=shares, regions=layers, mean_regions=means, table=table)


def _shares_table(
    arm: str, questions: AskedQuestions, names: Sequence[str], shares: Mapping[str, Tensor]
) -> pl.DataFrame:
    asked = questions.frame.select("question_id", "image_hash")
    return pl.concat(
        [
            asked.with_columns(
                pl.lit(arm).alias("arm"),
                pl.lit(name).alias("map"),
                *(
                    pl.Series(f"share_{key}", values[:, at].tolist(), dtype=pl.Float64).fill_nan(None)
                    for key, values in shares.items()
                ),
            )
            for at, name in enumerate(names)
        ]
    )


def _region_tables(
    questions: AskedQuestions,
    maps: Float[np.ndarray, "measured maps tokens"],
    coverage: Float[Tensor, "measured tokens"],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The measures of every layer, and those of the mean map as layer 0."""
    about, rows = _about(questions, questions.with_regions)
    return measure_layers(maps[:, :-1], coverage, about, rows), measure_layers(maps[:, -1:], coverage, about, rows)


def _teacher_table(questions: AskedQuestions, about: Sequence[int], teacher: TeacherMaps) -> pl.DataFrame | None:
    if not about:
        return None
    hashes = questions.frame["image_hash"].to_list()
    coverage = torch.stack([questions.coverage(index, teacher.layout(*questions.sizes[index])) for index in about])
    maps = torch.stack([teacher.E_a[hashes[index]].float() for index in about])
    return measure_layers(maps[:, None].numpy(), coverage, *_about(questions, about))


def _about(questions: AskedQuestions, about: Sequence[int]) -> tuple[list[tuple[str, ...]], Manifest]:
    """The names of the regions of some questions, and these questions."""
    names = [tuple(sorted({region.name for region in questions.regions[index]})) for index in about]
    manifest = questions.manifest
    return names, replace(manifest, frame=manifest.frame[about])


def _as_rows(table: pl.DataFrame, arm: str, names: Sequence[str]) -> pl.DataFrame:
    """The measures of `measure_layers` as columns of the table of attention."""
    columns = [f"{m.name}{end}" for m in MEASURES for end in ("", "_chance", "_other")]
    return table.select(
        "question_id",
        "image_hash",
        pl.lit(arm).alias("arm"),
        pl.col("layer").replace_strict(dict(enumerate(names)), return_dtype=pl.String).alias("map"),
        "regions",
        "area",
        *columns,
    )
