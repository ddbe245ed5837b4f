"""The demo's measures on held-out phantoms, and its conclusions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...progress import Progress
from ...student.inputs.collation import Sample
from ...student.inspection.agreement import measure_alignment
from ...student.loading.student_loading import Student
from ...student.metrics.region_attention import (
    attention_mass_inside,
    hits_expected_by_chance,
    mass_expected_by_chance,
    pointing_hit,
    region_coverage,
)
from ...teacher_cache.store import TeacherStore
from ..data import saved_tables
from ..data.manifest import Manifest
from ..data.phantoms.phantom_masks import load_masks
from ..evaluation.scoring import PREDICTIONS_FILE
from ..evaluation.statistics import Difference, paired_difference


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One row of the table."""

    name: str
    title: str
    better: str
    """`higher` or `lower`."""
    meaning: str
    """For readers who do not know it."""


MEASURES = (
    Measure(
        name="closed",
        title="closed accuracy (strict)",
        better="higher",
        meaning="share of yes/no questions answered right; strict: whole words are compared",
    ),
    Measure(
        name="open",
        title="open recall (strict)",
        better="higher",
        meaning="share of the reference's words that the answer has, over all other questions; strict: each word "
        "counts once",
    ),
    Measure(
        name="loss_lm",
        title="answer NLL, nats per token",
        better="lower",
        meaning="negative log likelihood: how improbable the student finds the right answer (a nat is the unit of "
        "natural logarithms)",
    ),
    Measure(
        name="loss_vis",
        title="L_vis",
        better="lower",
        meaning="mean squared difference between S of the student and S of the teacher; S is the matrix of cosine "
        "similarities of all pairs of patches",
    ),
    Measure(
        name="agreement",
        title="S-matrix agreement (Pearson)",
        better="higher",
        meaning="correlation of the same two matrices: whether the same pairs of patches are similar, whatever the "
        "mean and the spread of the similarities",
    ),
    Measure(
        name="kl",
        title="KL(E_a || M_a), nats",
        better="lower",
        meaning="how far the student's attention on the image, M_a, is from the teacher's, E_a; 0 if they are equal",
    ),
    Measure(
        name="mass",
        title="attention inside lesions",
        better="higher",
        meaning="share of the student's attention on the image that is inside the lesions",
    ),
    Measure(
        name="pointing",
        title="pointing game",
        better="higher",
        meaning="share of questions whose most attended patch touches a lesion",
    ),
)
SIMILARITY = ("similarity_mean", "similarity_spread", "teacher_similarity_mean", "teacher_similarity_spread")
"""Values of arms that explain others: mean and spread of the entries of S, of the student and of the teacher."""
_ALIGNMENT = ("loss_lm", "loss_vis", "kl", "agreement", *SIMILARITY)
"""Values of `measure_alignment`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmMeasures:
    """Every measure of one arm, per question; NaN if it does not apply. All arms have the same order."""

    images: tuple[str, ...]
    """Image hash of each question."""
    values: dict[str, tuple[float, ...]]
    reference: dict[str, dict[str, float]]
    """For `mass` and `pointing`: the values of uniform attention (`chance`) and of the teacher's E_a (`teacher`),
    which L_att approaches."""
    attention: Float[Tensor, "questions patches"]
    """M_a at the aligned layer, not normalized."""
    teacher_attention: Float[Tensor, "questions patches"]
    """E_a of each question's image, not normalized."""

    def mean(self, name: str) -> float:
        values = torch.tensor(self.values[name], dtype=torch.float64)
        return float(values.nanmean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Differences between each other arm and the baseline, and a summary."""

    baseline: str
    differences: dict[str, dict[str, Difference]]
    """By title of the other arm, then by name of the measure."""
    sentence: str

    def direction(self, title: str, measure: Measure) -> int:
        """1 if the arm is significantly better than the baseline, -1 if significantly worse, else 0."""
        return _direction(self.differences[title][measure.name], measure)


def measure_arm(
    student: Student,
    samples: Sequence[Sample],
    manifest: Manifest,
    store: TeacherStore,
    answers: Path,
    masks: Path,
    progress: Progress,
) -> ArmMeasures:
    """Scores of the saved answers, agreement with the teacher, and attention compared with exact lesion masks."""
    aligned = measure_alignment(student, samples, store, batch_size=32, progress=progress)
    attention = torch.stack([item.attention for item in aligned])
    teacher = torch.stack([item.teacher_attention for item in aligned])
    lesions = (load_masks(masks, sample.images[0].path.stem).lesions for sample in samples)
    coverage = torch.stack([region_coverage(torch.from_numpy(mask), student.images.grid) for mask in lesions])
    values = {name: [getattr(item, name) for item in aligned] for name in _ALIGNMENT}
    values["mass"] = attention_mass_inside(attention, coverage).tolist()
    values["pointing"] = pointing_hit(attention, coverage).tolist()
    values |= _scores(answers, manifest)
    return ArmMeasures(
        images=tuple(sample.images[0].image_hash for sample in samples),
        values={name: tuple(found) for name, found in values.items()},
        reference={
            "mass": {
                "chance": float(mass_expected_by_chance(coverage).nanmean()),
                "teacher": float(attention_mass_inside(teacher, coverage).nanmean()),
            },
            "pointing": {
                "chance": float(hits_expected_by_chance(coverage).nanmean()),
                "teacher": float(pointing_hit(teacher, coverage).nanmean()),
            },
        },
        attention=attention,
        teacher_attention=teacher,
    )


def compare_arms(arms: dict[str, ArmMeasures], *, baseline: str, seed: int) -> Findings:
    """Paired differences from the baseline, with intervals from resampling images, and a summary of them."""
    differences = {
        title: {
            measure.name: paired_difference(
                arms[baseline].values[measure.name], arm.values[measure.name], arm.images, seed=seed
            )
            for measure in MEASURES
        }
        for title, arm in arms.items()
        if title != baseline
    }
    sentence = " ".join(_sentence(arms, gaps, baseline, title) for title, gaps in differences.items())
    limit = "One training seed: the intervals cover the choice of test images, not of training runs."
    return Findings(baseline=baseline, differences=differences, sentence=f"{sentence} {limit}")


def _scores(answers: Path, manifest: Manifest) -> dict[str, list[float]]:
    """Strict scores of each question in the manifest's order, by kind; NaN for the other kind."""
    predictions = saved_tables.read(answers / PREDICTIONS_FILE, f"remove {answers} and run the demo again").rows
    ordered = manifest.frame.select("question_id").join(
        predictions, on="question_id", how="left", maintain_order="left"
    )
    kinds = {"open": [], "closed": []}  # type: dict[str, list[float]]
    for kind, score in ordered.select("strict_kind", "strict_score").iter_rows():
        for name, scores in kinds.items():
            scores.append(float(score) if kind == name and score is not None else float("nan"))
    return kinds


def _direction(gap: Difference, measure: Measure) -> int:
    if not gap.beyond_noise:
        return 0
    return 1 if (gap.mean > 0) == (measure.better == "higher") else -1


def _sentence(arms: dict[str, ArmMeasures], gaps: dict[str, Difference], baseline: str, title: str) -> str:
    def changes(sign: int) -> str:
        moved = (m for m in MEASURES if _direction(gaps[m.name], m) == sign)
        return "; ".join(
            f"{m.title} {arms[baseline].mean(m.name):.3g} -> {arms[title].mean(m.name):.3g}" for m in moved
        )

    same = "; ".join(m.title for m in MEASURES if _direction(gaps[m.name], m) == 0)
    parts = [
        f"{title} compared with {baseline}, same budget and seed.",
        f"Significant improvements (95 % over test images): {changes(1) or 'none'}.",
    ]
    if worse := changes(-1):
        parts.append(f"Significantly worse: {worse}.")
    if same:
        parts.append(f"No significant difference: {same}.")
    return " ".join(parts)
