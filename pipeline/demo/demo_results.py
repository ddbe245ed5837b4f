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
    """Differences between MEDALIGN and the baseline and the control, and a summary."""

    against_baseline: dict[str, Difference]
    against_control: dict[str, Difference]
    sentence: str

    def directions(self, measure: Measure) -> tuple[int, int]:
        """Against the baseline and the control: 1 if significantly better, -1 if significantly worse, else 0."""
        return _direction(self.against_baseline, measure), _direction(self.against_control, measure)


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


def compare_arms(arms: dict[str, ArmMeasures], *, baseline: str, control: str, treated: str, seed: int) -> Findings:
    """Paired differences, with intervals from resampling images, and a summary of them."""
    differences = {
        other: {
            measure.name: paired_difference(
                arms[other].values[measure.name], arms[treated].values[measure.name], arms[other].images, seed=seed
            )
            for measure in MEASURES
        }
        for other in (baseline, control)
    }
    return Findings(
        against_baseline=differences[baseline],
        against_control=differences[control],
        sentence=_sentence(arms, differences[baseline], differences[control], baseline, control, treated),
    )


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


def _direction(differences: dict[str, Difference], measure: Measure) -> int:
    gap = differences[measure.name]
    if not gap.beyond_noise:
        return 0
    return 1 if (gap.mean > 0) == (measure.better == "higher") else -1


def _sentence(
    arms: dict[str, ArmMeasures],
    gained: dict[str, Difference],
    controlled: dict[str, Difference],
    baseline: str,
    control: str,
    treated: str,
) -> str:
    def change(measure: Measure) -> str:
        return f"{measure.title} {arms[baseline].mean(measure.name):.3g} -> {arms[treated].mean(measure.name):.3g}"

    def one_sided(measure: Measure) -> str:
        only, other = (baseline, control) if moved[measure][0] else (control, baseline)
        word = "better" if max(moved[measure], key=abs) > 0 else "worse"
        return f"{measure.title} ({word} than {only}, no significant difference from {other})"

    moved = {measure: (_direction(gained, measure), _direction(controlled, measure)) for measure in MEASURES}
    groups = {
        "Significant improvements on both (95 % over test images)": [change(m) for m in MEASURES if moved[m] == (1, 1)],
        "Significantly worse than both": [change(m) for m in MEASURES if moved[m] == (-1, -1)],
        "Better than one and worse than the other": [m.title for m in MEASURES if moved[m] in ((1, -1), (-1, 1))],
        "Significant against one only": [one_sided(m) for m in MEASURES if sum(map(abs, moved[m])) == 1],
        "No significant difference": [m.title for m in MEASURES if moved[m] == (0, 0)],
    }
    parts = [f"{treated} compared with {baseline} and with {control}, same budget and seed."]
    first, *rest = groups.items()
    parts.append(f"{first[0]}: {'; '.join(first[1]) or 'none'}.")
    parts += [f"{title}: {'; '.join(found)}." for title, found in rest if found]
    parts.append("One training seed: the intervals cover the choice of test images, not of training runs.")
    return " ".join(parts)
