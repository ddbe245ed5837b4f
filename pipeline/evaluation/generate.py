"""`medalign student generate`: answer one question about images, without a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...choices import DtypeChoice
from ...errors import InputError
from ...progress import Silent
from ...student.decoding.questions import Question, answer_questions, check_text
from ...student.loading.student_loading import load_student
from ...teacher_cache.images import as_stored
from ..devices import pick_device
from ..runs.provenance import adapter_folder, template_warnings
from ..runs.stop_reasons import FINISHES, finish_warnings
from .decoding_choice import read_decoding
from .requests import check_has_lora


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A question and the student's answer."""

    question: str
    images: tuple[Path, ...]
    answer: str
    forwards: int
    """Forward passes of the language model."""
    finish: str
    """`end`, `length` (cut off at the maximum length) or `empty`."""
    template: str
    warnings: tuple[str, ...]
    """Warnings about the answer."""

    def summary(self) -> dict[str, object]:
        return {
            "question": self.question,
            "images": [str(path) for path in self.images],
            "answer": self.answer,
            "forwards": self.forwards,
            "finish": self.finish,
            "template": self.template,
            "warnings": list(self.warnings),
        }


def ask(
    student: Path,
    adapter: Path | None,
    images: Sequence[Path],
    question: str,
    *,
    decode: str,
    overrides: Sequence[str],
    max_new_tokens: int,
    template: str | None,
    device: str | None,
    dtype: DtypeChoice,
    keep_lora_apart: bool = False,
) -> Answer:
    """Load a student and answer one question.

    Raises:
        InputError: The student or an image cannot be read.
        SettingsError: A device, template, decoding method or setting does not exist, or there is no LoRA to keep
            separate.
    """
    decoding = read_decoding(decode, overrides, max_new_tokens=max_new_tokens)
    check_text(question)
    missing = [path for path in images if not as_stored(path).is_file()]
    if missing:
        raise InputError(f"image not found: {', '.join(map(str, missing))}")
    if keep_lora_apart:
        check_has_lora(student, adapter_folder(student, adapter))
    loaded = load_student(
        student,
        adapter=adapter,
        device=pick_device(device),
        dtype=dtype,
        template=template,
        keep_lora_apart=keep_lora_apart,
    )
    given = Question(text=question, images=tuple(images))
    (answer,) = answer_questions(loaded, [given], decoding, batch_size=1, progress=Silent())
    counts = {name: int(name == answer.finish) for name in FINISHES}
    return Answer(
        question=question,
        images=tuple(images),
        answer=answer.text,
        forwards=answer.forwards,
        finish=answer.finish,
        template=loaded.template_name,
        warnings=(*template_warnings(loaded), *finish_warnings(counts, max_new_tokens)),
    )
