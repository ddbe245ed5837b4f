"""Agreement of the tokens' similarity matrix S with the teacher's, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from ....student.inspection.token_capture import PIXELS, TEACHER, StageTokens
from ...evaluation.statistics import Difference, paired_difference


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StageAgreement:
    """Agreement at one stage of an arm."""

    arm: str
    stage: str
    values: Float[np.ndarray, " images"]
    """Pearson correlation of the off-diagonal entries of S with the teacher's; nan where one of them is constant."""
    mean: Difference
    """With a 95 % interval over images."""
    change: Difference | None
    """From the base, paired over images."""


def stage_agreements(
    arm: str, stages: Sequence[StageTokens], base: Mapping[str, StageAgreement], *, seed: int
) -> list[StageAgreement]:
    """The agreement of every stage that has one; `base` has the base's by stage, empty for the base."""
    found = []
    for stage in stages:
        if stage.name in (PIXELS, TEACHER) or not np.isfinite(stage.agreement).any():
            continue
        groups = [str(image) for image in range(len(stage.agreement))]
        values = stage.agreement.astype(float).tolist()
        before = base.get(stage.name)
        change = None
        if before is not None and np.isfinite(before.values + stage.agreement).any():
            change = paired_difference(before.values.tolist(), values, groups, seed=seed)
        mean = paired_difference([0.0] * len(groups), values, groups, seed=seed)
        found.append(StageAgreement(arm=arm, stage=stage.name, values=stage.agreement, mean=mean, change=change))
    return found


def agreement_table(found: Sequence[StageAgreement]) -> pl.DataFrame:
    """One row per arm and stage."""
    return pl.DataFrame(
        [
            {
                "arm": item.arm,
                "stage": item.stage,
                "agreement": item.mean.mean,
                "low": item.mean.low,
                "high": item.mean.high,
                "change": None if item.change is None else item.change.mean,
                "change_low": None if item.change is None else item.change.low,
                "change_high": None if item.change is None else item.change.high,
            }
            for item in found
        ],
        infer_schema_length=None,
    )
