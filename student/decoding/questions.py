"""Questions outside of manifests: images and text from a command line or a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import SettingsError
from ...progress import Progress
from ...teacher_cache.images import DecodedImage, ImageLike, decode_given
from ..inputs.collation import Pixels, Sample, SampleImage
from ..inputs.image_processing import StudentImages
from ..loading.student_loading import Student
from . import Decoding
from .generation import Answer, answer_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question about images, or about text only."""

    text: str
    images: tuple[ImageLike, ...]


def answer_questions(
    student: Student, questions: Sequence[Question], decoding: Decoding, *, batch_size: int, progress: Progress
) -> list[Answer]:
    """Answer every question, in order; images are decoded batch by batch.

    Raises:
        InputError: an image cannot be read, a question has no image but the method needs one, a prompt and its answer
            are longer than the student's positions, or logits are not finite.
        SettingsError: a question is not valid UTF-8 text.
    """
    for question in questions:
        check_text(question.text)
    progress.start(f"answering ({decoding.name})", len(questions))
    answers: list[Answer] = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        decoded = [[decode_given(image) for image in question.images] for question in batch]
        samples = [_sample(question, images) for question, images in zip(batch, decoded, strict=True)]
        answers += answer_batch(student, samples, decoding, [_pixels(student.images, images) for images in decoded])
        progress.advance(len(batch))
    return answers


def check_text(question: str) -> None:
    """Check that a question is valid text.

    Raises:
        SettingsError: it contains bytes that could not be decoded.
    """
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"--question {question!r} contains bytes that are not UTF-8. Use a UTF-8 terminal"
        ) from error


def _sample(question: Question, images: Sequence[DecodedImage]) -> Sample:
    """Convert a question to a sample; its files are not read, so images are identified only by their pixels.

    Its text is its id, from which random numbers are drawn, so that the answer does not depend on other questions.
    """
    sample_images = tuple(
        SampleImage(
            path=Path(image) if isinstance(image, str | Path) else Path(f"image {number_of_image}"),
            image_hash=decoded.pixel_hash,
            pixel_hash=decoded.pixel_hash,
        )
        for number_of_image, (image, decoded) in enumerate(zip(question.images, images, strict=True), 1)
    )
    return Sample(question_id=question.text, question=question.text, answer="", images=sample_images)


def _pixels(images: StudentImages, decoded: Sequence[DecodedImage]) -> Pixels:
    def read() -> Float[Tensor, "images 3 size size"] | None:
        return torch.stack([images.pixels(image.shown) for image in decoded]) if decoded else None

    return read
