"""All measures for every question and layer, with chance levels and the values with attention to other images.

Q questions, L layers, N patches, P partners.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....errors import InputError
from ....student.metrics.region_attention import (
    attention_mass_inside,
    energy_iou,
    energy_iou_expected_by_chance,
    hits_expected_by_chance,
    mass_expected_by_chance,
    pointing_hit,
)
from ...data.manifest import Manifest
from ...data.manifest_images import IMAGE_HASHES

PARTNERS = 8
"""Questions about other images whose attention is compared with the region of each question."""
_SEED = 0
_AGAIN = "Copy the folder again, or run `medalign student ground` again with another --out"

Maps = Float[Tensor, "questions patches"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measure of the attention on a region, in [0, 1]; higher is better."""

    name: str
    title: str
    of: Callable[[Tensor, Tensor], Tensor]
    """Function of attention and coverage, per question."""
    by_chance: Callable[[Tensor], Tensor]
    """Expected value of uniform attention."""


MEASURES = (
    Measure(name="mass", title="inside", of=attention_mass_inside, by_chance=mass_expected_by_chance),
    Measure(name="pointing", title="pointing", of=pointing_hit, by_chance=hits_expected_by_chance),
    Measure(name="energy_iou", title="energy IoU", of=energy_iou, by_chance=energy_iou_expected_by_chance),
)


def measure_layers(
    attention: Float[np.ndarray, "questions layers patches"],
    coverage: Maps,
    names: Sequence[tuple[str, ...]],
    manifest: Manifest,
) -> pl.DataFrame:
    """One row per question and layer: the question, its regions, their fraction of the square, and the measures.

    `attention` is on the first image of each question, `image_hash`, which has the regions; `image_hashes` are all its
    images. `NAME_chance` is the same at every layer; `NAME_other` is null if no other image has a question about
    regions with the same names, in the same modality.
    """
    alike = list(zip(names, manifest.frame["modality"].to_list(), strict=True))
    partners = draw_partners(alike, manifest.frame["image_hash"].to_list())
    asked = ["question", "answer", "answer_type", "question_type", "modality", "organ"]
    fixed = manifest.frame.select("question_id", "image_hash", IMAGE_HASHES.alias("image_hashes"), *asked).with_columns(
        pl.Series("regions", names, dtype=pl.List(pl.String)),
        pl.Series("area", coverage.mean(dim=1).tolist(), dtype=pl.Float64),
        *(pl.Series(f"{m.name}_chance", m.by_chance(coverage).tolist(), dtype=pl.Float64) for m in MEASURES),
    )
    maps = (torch.from_numpy(attention[:, layer].copy()) for layer in range(attention.shape[1]))
    return pl.concat([_layer(fixed, layer, each, coverage, partners) for layer, each in enumerate(maps)])


def check_table(table: pl.DataFrame, path: Path) -> None:
    """Check the columns of a saved table.

    Raises:
        InputError: A column is missing or has another type, or a measure is not in [0, 1]; the message has the first.
    """
    texts, shares = pl.List(pl.String), [name for m in MEASURES for name in (m.name, f"{m.name}_other")]
    kinds: dict[str, Any] = {"question_id": pl.String, "layer": pl.Int32, "image_hash": pl.String, "regions": texts}
    kinds |= {"image_hashes": texts, "area": pl.Float64, **dict.fromkeys(shares, pl.Float64)}
    kinds |= {f"{measure.name}_chance": pl.Float64 for measure in MEASURES}
    for name, kind in kinds.items():
        found = table.schema.get(name)
        if found != kind:
            has = "is missing" if found is None else f"is {found}"
            raise InputError(f"{path}: its column {name} {has}, expected {kind}. {_AGAIN}")
        if kind == pl.Float64:
            wrong = table[name].drop_nulls().filter(~table[name].drop_nulls().is_between(0, 1 + 1e-6))
            if len(wrong):
                raise InputError(f"{path}: its column {name} has {wrong[0]}, expected a value from 0 to 1. {_AGAIN}")


def draw_partners(
    keys: Sequence[Hashable], images: Sequence[str], partners: int = PARTNERS
) -> Int[Tensor, "questions partners"]:
    """For each question, others with the same key about other images; -1 if there are none.

    Drawn without replacement, seeded; if there are fewer than `partners`, they are repeated.
    """
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        alike[key].append(index)
    image = np.asarray(images)
    generator = np.random.default_rng(_SEED)
    drawn = np.full((len(keys), partners), -1)
    for index, key in enumerate(keys):
        candidates = np.asarray(alike[key])
        candidates = candidates[image[candidates] != image[index]]
        if len(candidates):
            drawn[index] = np.resize(generator.permutation(candidates), partners)
    return torch.from_numpy(drawn)


def _layer(
    fixed: pl.DataFrame, layer: int, attention: Maps, coverage: Maps, partners: Int[Tensor, "questions partners"]
) -> pl.DataFrame:
    columns = [pl.Series("layer", [layer] * fixed.height, dtype=pl.Int32)]
    alone = partners[:, 0] < 0
    for measure in MEASURES:
        others = [measure.of(attention[column], coverage) for column in partners.clamp(min=0).T]
        other = torch.stack(others).mean(dim=0).masked_fill(alone, torch.nan)
        for name, values in ((measure.name, measure.of(attention, coverage)), (f"{measure.name}_other", other)):
            columns.append(pl.Series(name, values.tolist(), dtype=pl.Float64).fill_nan(None))
    return fixed.with_columns(columns)
