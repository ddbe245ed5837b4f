"""The largest batch of a training run, from which its memory is estimated."""

from collections.abc import Sequence

from ...choices import AttentionRows
from ...student.adapters.parameter_names import Part
from ...student.inputs.collation import Sample, encode_text
from ...student.inputs.spans import IGNORED_LABEL
from ...student.loading.student_loading import Student
from ...student.training.restricted_gradient import parameters_of
from ...student.training.step_memory import StepShape
from .settings import Settings


def largest_step(settings: Settings, student: Student, samples: list[Sample], tokens: int) -> StepShape:
    """The shape of a batch of the largest samples; `tokens` is the length of the longest."""
    size = settings.training.per_device_train_batch_size
    answer = rows = 0
    for sample in samples:
        ids, labels = encode_text(student, sample, with_answer=True)
        answer = max(answer, sum(label != IGNORED_LABEL for label in labels))
        rows = max(rows, _rows_of(settings.alignment.attention_rows, ids, labels, student.model.image_token_id))
    return StepShape(
        samples=size,
        tokens=tokens,
        answer_tokens=answer,
        images=size * max(len(sample.images) for sample in samples),
        attention_rows=rows,
        weighted_cosines=settings.alignment.visual_weights != "uniform",
        separate_gradients=sum(value.numel() for value in parameters_of(student.model, visual_parts(settings) or ())),
    )


def visual_parts(settings: Settings) -> tuple[Part, ...] | None:
    """Parts that L_vis changes; None if all trained parts, or if there is no L_vis."""
    if not settings.restricts_visual_gradient:
        return None
    names: dict[str, Part] = {
        "lora": "language_model",
        "rotation": "rotation",
        "projector": "projector",
        "tower": "vision_tower",
    }
    return tuple(names[part] for part in settings.alignment.visual_gradient)


def _rows_of(which: AttentionRows, ids: Sequence[int], labels: Sequence[int], image: int) -> int:
    """Rows of M_a for a sample's first image, which has the most; 0 without an image."""
    if image not in ids:
        return 0
    first = ids.index(image)
    end = next((place for place, label in enumerate(labels) if label != IGNORED_LABEL), len(ids))
    question = end - first - ids.count(image)
    answer = len(ids) - end
    # The last token of the prompt, which predicts the answer's first token, is in both.
    return {"question": question, "answer": answer, "both": question + answer - 1}[which]
