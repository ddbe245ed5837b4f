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


MEASURES = (
    Measure(name="closed", title="closed accuracy (strict)", better="higher"),
    Measure(name="open", title="open recall (strict)", better="higher"),
    Measure(name="loss_lm", title="answer NLL, nats per token", better="lower"),
    Measure(name="loss_vis", title="L_vis", better="lower"),
    Measure(name="agreement", title="S-matrix agreement (Pearson)", better="higher"),
    Measure(name="kl", title="KL(E_a || M_a), nats", better="lower"),
    Measure(name="mass", title="attention inside lesions", better="higher"),
    Measure(name="pointing", title="pointing game", better="higher"),
)


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
    values = {name: [getattr(item, name) for item in aligned] for name in ("loss_lm", "loss_vis", "kl", "agreement")}
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

    def moved(measure: Measure, differences: dict[str, Difference]) -> bool:
        return differences[measure.name].beyond_noise

    def improved(measure: Measure) -> bool:
        return (gained[measure.name].mean > 0) == (measure.better == "higher")

    better = [m for m in MEASURES if moved(m, gained) and moved(m, controlled) and improved(m)]
    worse = [m for m in MEASURES if moved(m, gained) and moved(m, controlled) and not improved(m)]
    rest = [m for m in MEASURES if m not in better and m not in worse]
    parts = [f"{treated} compared with {baseline} and with {control}, same budget and seed."]
    parts.append(
        "Significant improvements (95 % over test images): " + ("; ".join(map(change, better)) or "none") + "."
    )
    if worse:
        parts.append("Significantly worse: " + "; ".join(map(change, worse)) + ".")
    if rest:
        parts.append("No significant difference: " + ", ".join(measure.title for measure in rest) + ".")
    parts.append("One training seed: the intervals cover the choice of test images, not of training runs.")
    return " ".join(parts)
