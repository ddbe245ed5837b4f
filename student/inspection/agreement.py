"""Agreement of a student with a teacher: losses, structure and attention for every question, without training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...progress import Progress
from ...teacher_cache.geometry.cosines import cosine_matrix
from ...teacher_cache.store import TeacherStore
from ..alignment.losses import attention_alignment_loss, teacher_cosines, visual_alignment_loss
from ..inputs.alignment_dataset import AlignmentDataset
from ..inputs.collation import AlignmentCollator, Sample
from ..loading.student_loading import Student
from ..metrics.region_attention import cosine_agreement


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionAlignment:
    """Losses and attention for one question about one image. N patches."""

    question_id: str
    loss_lm: float
    """Mean negative log likelihood of the answer tokens, in nats."""
    loss_vis: float
    """L_vis (Eq. 4)."""
    kl: float
    """KL(E_a || M_a) of sum-normalized maps, in nats, regardless of the loss that the student was trained with."""
    agreement: float
    """Pearson correlation of the off-diagonal entries of S^e and S^x."""
    similarity_mean: float
    """Mean of the off-diagonal entries of S^x. L_vis also falls if this and the next come near the teacher's."""
    similarity_spread: float
    """Their standard deviation."""
    teacher_similarity_mean: float
    """The same of S^e."""
    teacher_similarity_spread: float
    attention: Float[Tensor, " patches"]
    """M_a at layer l, mean over heads and question tokens, not normalized."""
    teacher_attention: Float[Tensor, " patches"]
    """E_a of the image, not normalized."""


@torch.no_grad()
def measure_alignment(
    student: Student, samples: Sequence[Sample], store: TeacherStore, *, batch_size: int, progress: Progress
) -> list[QuestionAlignment]:
    """Compare a student with the teacher's targets on questions with exactly one image each, in order.

    Raises:
        MissingTeacherRow: an image is not in the store.
    """
    dataset = AlignmentDataset(student, samples, store, max_length=student.model.max_positions)
    collate = AlignmentCollator.of(student)
    progress.start("measuring alignment", len(samples))
    measured: list[QuestionAlignment] = []
    for start in range(0, len(samples), batch_size):
        encoded = [dataset[index] for index in range(start, min(start + batch_size, len(samples)))]
        batch = {name: tensor.to(student.model.device) for name, tensor in collate(encoded).items()}
        measured += _measure_batch(student, samples[start : start + batch_size], batch)
        progress.advance(len(encoded))
    return measured


def _measure_batch(student: Student, samples: Sequence[Sample], batch: dict[str, Any]) -> list[QuestionAlignment]:
    teacher = teacher_cosines(batch.pop("E_v", None), batch.pop("S", None))
    E_a = batch.pop("E_a")
    output = student.model(**batch)
    assert teacher is not None
    (layer,) = output.layers
    cosines = cosine_matrix(layer.tokens)
    loss_lm = output.loss_lm / output.answer_tokens
    loss_vis = visual_alignment_loss(cosines, teacher)
    kl = attention_alignment_loss(layer.attention, E_a, "sum")
    agreement = [float(cosine_agreement(*pair)) for pair in zip(cosines, teacher, strict=True)]
    mean, spread = _off_diagonal_moments(cosines)
    teacher_mean, teacher_spread = _off_diagonal_moments(teacher)
    return [
        QuestionAlignment(
            question_id=sample.question_id,
            loss_lm=float(loss_lm[index]),
            loss_vis=float(loss_vis[index]),
            kl=float(kl[index]),
            agreement=agreement[index],
            similarity_mean=float(mean[index]),
            similarity_spread=float(spread[index]),
            teacher_similarity_mean=float(teacher_mean[index]),
            teacher_similarity_spread=float(teacher_spread[index]),
            attention=layer.attention[index].float().cpu(),
            teacher_attention=E_a[index].cpu(),
        )
        for index, sample in enumerate(samples)
    ]


def _off_diagonal_moments(
    cosines: Float[Tensor, "batch patch patch"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Mean and standard deviation of the entries off the diagonal of each cosine matrix."""
    off_diagonal = ~torch.eye(cosines.shape[1], dtype=torch.bool, device=cosines.device)
    entries = cosines[:, off_diagonal].double()
    return entries.mean(dim=1), entries.std(dim=1, correction=0)
