"""Everything that an inspection finds about image tokens, arm by arm: probes, clusters and agreement."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...progress import Labeled, Progress
from ...student.inspection.token_capture import PIXELS, StageTokens
from ...teacher_cache.geometry.patch_grid import PatchGrid
from .arms import Arm
from .cell_labels import CellLabels
from .inspected_images import InspectedImages
from .probes.probe_tasks import ProbeFamily, probe_families
from .probes.stage_scores import StageScores, probe_stages
from .probes.verdict import Verdict, judge
from .tokens.agreement_curves import StageAgreement, stage_agreements
from .tokens.token_study import (
    NamedTokens,
    Projection,
    StageClusters,
    choose_tokens,
    measure_clusters,
    project_stages,
    shown_stages,
)

TEACHER_ARM = "teacher"


@dataclass(kw_only=True, eq=False, slots=True)
class TokenFindings:
    """Findings so far; `add` takes the next arm, the base first."""

    cells: CellLabels
    families: tuple[ProbeFamily, ...]
    named: NamedTokens | None
    grid: PatchGrid
    aligned: tuple[int, ...]
    """Aligned layers of all adapters."""
    seed: int
    scores: dict[tuple[str, str], StageScores] = field(default_factory=dict)
    """By arm and family."""
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    clusters: list[StageClusters] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    agreements: list[StageAgreement] = field(default_factory=list)
    _base: dict[str, StageTokens] = field(default_factory=dict)
    _base_name: str = ""

    @property
    def images(self) -> int:
        """Number of images in the sample."""
        return len(self.cells.chosen)

    @classmethod
    def begin(
        cls, inspected: InspectedImages, cells: CellLabels, arms: Sequence[Arm], *, grid: PatchGrid, seed: int
    ) -> "TokenFindings":
        """Choose what is probed and drawn."""
        return cls(
            cells=cells,
            families=probe_families(inspected, cells),
            named=choose_tokens(cells, seed=seed),
            grid=grid,
            aligned=tuple(sorted({layer for arm in arms for layer in arm.aligned_layers})),
            seed=seed,
        )

    def add(self, arm: str, stages: Sequence[StageTokens], teacher: StageTokens | None, progress: Progress) -> None:
        """Measure an arm; stages whose tokens are those of the base are not measured again."""
        labeled = Labeled(progress, arm)
        same = self._same(stages)
        for family in self.families:
            known = self.scores.get((self._base_name, family.name))
            sources = [stage for stage in stages if stage.name == PIXELS] + ([] if teacher is None else [teacher])
            own = [stage for stage in stages if stage.name != PIXELS]
            scores = probe_stages(
                family, [*sources, *own], self.cells.chosen, self.grid, seed=self.seed, progress=labeled,
                known=known, same=same,
            )  # fmt: skip
            self.scores[arm, family.name] = scores
            self.verdicts[arm, family.name] = judge(scores, self.seed)
        self._add_clusters(arm, stages, teacher, same, progress)
        base = {found.stage: found for found in self.agreements if found.arm == self._base_name}
        self.agreements += stage_agreements(arm, stages, base, seed=self.seed)
        if not self._base:
            self._base, self._base_name = {stage.name: stage for stage in stages}, arm

    def _add_clusters(
        self, arm: str, stages: Sequence[StageTokens], teacher: StageTokens | None, same: set[str], progress: Progress
    ) -> None:
        if self.named is None:
            return
        base = {found.stage: found for found in self.clusters if found.arm == self._base_name}
        labeled = Labeled(progress, arm)
        if not self._base and teacher is not None:
            taught = Labeled(progress, TEACHER_ARM)
            self.clusters += measure_clusters(self.named, TEACHER_ARM, [teacher], {}, seed=self.seed, progress=taught)
            self.projections += project_stages(self.named, TEACHER_ARM, [teacher], seed=self.seed, progress=taught)
        self.clusters += measure_clusters(self.named, arm, stages, base, seed=self.seed, progress=labeled)
        shown = shown_stages([stage.name for stage in stages], self.aligned)
        new = [stage for stage in stages if stage.name in shown and stage.name not in same]
        self.projections += project_stages(self.named, arm, new, seed=self.seed, progress=labeled)
        layers = [stage for stage in shown if stage in same and stage.startswith("layer")]
        self.projections += [
            replace(plane, arm=arm)
            for plane in list(self.projections)
            if plane.arm == self._base_name and plane.stage in layers
        ]

    def _same(self, stages: Sequence[StageTokens]) -> set[str]:
        """Stages with exactly the base's tokens, such as those before the first trained part; the sources always."""
        if not self._base:
            return set()
        equal = {
            stage.name
            for stage in stages
            if stage.name in self._base and np.array_equal(stage.pooled, self._base[stage.name].pooled)
        }
        return equal | {PIXELS, TEACHER_ARM}
