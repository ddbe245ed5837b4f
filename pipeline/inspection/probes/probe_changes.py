"""How linear probes of a student's tokens changed, with intervals over images."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Int

from ....progress import Progress
from ....student.inspection.token_capture import StageTokens
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ...align.measured_changes import ProbeMoved
from .probe_tasks import ProbeFamily
from .stage_scores import probe_stages

_TAILS: Final = (2.5, 97.5)


def probe_changes(
    kind: str,
    family: ProbeFamily,
    stages: tuple[Sequence[StageTokens], Sequence[StageTokens]],
    chosen: Int[np.ndarray, "images chosen"],
    grid: PatchGrid,
    *,
    seed: int,
    progress: Progress,
) -> list[ProbeMoved]:
    """Probe every stage of a student before and after; both are resampled with the same images.

    A stage whose scores are not finite is left out.
    """
    before, after = (probe_stages(family, one, chosen, grid, seed=seed, progress=progress) for one in stages)
    gaps = after.resampled(seed)[0] - before.resampled(seed)[0]
    low, high = np.nanpercentile(gaps, _TAILS, axis=0)
    columns = zip(before.stages, before.values(), after.values(), low, high, strict=True)
    values = [row for row in columns if np.isfinite(row[1:]).all()]
    return [
        ProbeMoved(
            images=kind,
            labels=before.family.name,
            stage=stage,
            before=float(old),
            after=float(new),
            low=float(least),
            high=float(most),
            floor=before.floor(),
            sample=before.images,
        )
        for stage, old, new, least, most in values
    ]
