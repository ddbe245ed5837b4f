"""What one arm does with the asked questions: attention at every layer, loss of the reference, and a greedy answer.

Q questions, L layers, T image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ....progress import Progress
from ....student.decoding import Decoding, choose_decoding
from ....student.decoding.generation import Answer, answer_batch
from ....student.inputs.collation import Pixels, Sample
from ....student.inspection.question_reading import ReadQuestion, read_questions
from ....student.loading.student_loading import Student
from ...data.manifest import Manifest
from ...data.samples import manifest_samples
from ...evaluation.batches.batch_work import BatchOrder, BatchResult, Cell, StudentRecipe, work_through

_ASKED = "asked"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ArmQuestions:
    """One arm's attention, losses and answers, in the order of the questions."""

    attention: Float[np.ndarray, "questions layers tokens"]
    """M_a at every decoder layer, not normalized."""
    answers: tuple[Answer, ...]
    loss_lm: tuple[float | None, ...]
    """Mean negative log likelihood of the reference's tokens, in nats; None without a reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _AskAndRead:
    """Read a batch of questions with their references, then answer them."""

    decoding: Decoding

    @property
    def max_new_tokens(self) -> int:
        return self.decoding.max_new_tokens

    def __call__(
        self, student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels]
    ) -> list[tuple[ReadQuestion, Answer]]:
        read = read_questions(student, samples, pixels)
        return list(zip(read, answer_batch(student, samples, self.decoding, pixels), strict=True))


def capture_questions(
    student: Student, asked: Manifest, *, batch_size: int, max_new_tokens: int, progress: Progress
) -> ArmQuestions:
    """Read and answer every question of `asked`; each has one image.

    Raises:
        InputError: An image cannot be read, a question is too long for the student, or attention or logits are not
            finite.
    """
    samples = tuple(manifest_samples(asked))
    decoding = choose_decoding("greedy", {}, max_new_tokens=max_new_tokens)
    order = BatchOrder(
        students=(StudentRecipe(folder=student.base),),
        cells=(Cell(student=0, questions=_ASKED, ask=_AskAndRead(decoding=decoding)),),
        samples={_ASKED: samples},
        batch_size=batch_size,
    )
    results: list[tuple[ReadQuestion, Answer]] = []

    def keep(result: BatchResult) -> None:
        results.extend(result.results)
        progress.advance(len(result.results))

    progress.start("reading and answering questions", len(samples))
    work_through(order, order.jobs(), lambda number: student, keep)
    shape = (len(samples), len(student.model.decoder_layers), student.model.patches)
    attention = np.zeros(shape, dtype=np.float32)
    for index, (read, _) in enumerate(results):
        attention[index] = read.attention.numpy()
    return ArmQuestions(
        attention=attention,
        answers=tuple(answer for _, answer in results),
        loss_lm=tuple(read.loss_lm for read, _ in results),
    )
