"""Load a student and ask it questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from threading import Lock
from typing import Any, get_args, overload
from weakref import WeakKeyDictionary

import numpy as np
from torch.nn import Module

from ..choices import DtypeChoice
from ..errors import SettingsError
from ..pipeline.devices import pick_device
from ..pipeline.evaluation.requests import check_has_lora
from ..pipeline.runs.provenance import adapter_folder, template_warnings
from ..progress import Progress, Silent
from ..student.decoding import choose_decoding
from ..student.decoding.generation import Answer
from ..student.decoding.questions import Question, answer_questions
from ..student.inspection.image_attention import ImageAttention, read_attention
from ..student.loading.student_loading import Student as LoadedStudent
from ..student.loading.student_loading import load_student as load
from ..teacher_cache.images import ImageLike, decode_given
from .arguments import (
    AnyPath,
    Images,
    check_choices,
    check_positive,
    check_texts,
    images_of,
    local_path,
    optional_path,
    progress_of,
)


class Student(LoadedStudent):
    """A loaded student that answers questions about images; `load_student` makes one.

    `model` is the torch module, `tokenizer` its tokenizer, and `images` its input square and patch grid. Several
    threads may ask one student; it answers them one after the other.
    """

    def ask(
        self, image: Images, question: str, *, decoding: str = "greedy", max_new_tokens: int = 128, **settings: Any
    ) -> str:
        """Answer one question, as `medalign student generate` and `evaluate` do.

        Args:
            image: A path, a Pillow image, or uint8 pixels `[height, width]` or `[height, width, 3]`; a list of these
                for a question about several images, or an empty list for a text-only question.
            question: The question, without a prompt template; the student's template is applied.
            decoding: Name of a decoding method (`medalign student decodings` lists them).
            max_new_tokens: Maximum length of an answer, in tokens.
            **settings: Settings of the method, such as `alpha=0.5`; the others keep their defaults.

        Raises:
            InputError: An image cannot be read, the method needs an image and there is none, the prompt is too long
                for the student, or logits are not finite.
            SettingsError: The method or a setting does not exist, or a value is out of range.

        Examples:
            >>> import medalign
            >>> student = medalign.load_student("medalign-demo/student", template="plain", device="cpu")
            >>> student.ask("medalign-demo/phantoms/images/00000.png", "What kind of image is this?")
            'abdominal CT'
        """
        check_positive(max_new_tokens=(max_new_tokens,))
        check_texts(question=(question,))
        decoded = choose_decoding(decoding, settings, max_new_tokens=max_new_tokens)
        given = Question(text=question, images=images_of(image))
        with _turn(self.model):
            (answer,) = answer_questions(self, [given], decoded, batch_size=1, progress=Silent())
        return answer.text

    def ask_batch(
        self,
        questions: Sequence[tuple[Images, str]],
        *,
        decoding: str = "greedy",
        max_new_tokens: int = 128,
        batch_size: int = 8,
        progress: bool | Progress = False,
        **settings: Any,
    ) -> list[Answer]:
        """Answer several questions, `batch_size` at once.

        Args:
            questions: Pairs of images and question, as `ask` takes them.
            decoding: Name of a decoding method.
            max_new_tokens: Maximum length of an answer, in tokens.
            batch_size: Questions answered at once. Answers do not depend on it, except for rounding.
            progress: True shows a bar on the terminal.
            **settings: Settings of the method.

        Returns:
            One record for each question, in order: `text`, `finish` (`"end"`, `"length"` if it was cut off at
            `max_new_tokens`, `"empty"`) and `forwards`, the passes of the language model.

        Raises:
            InputError: As `ask`.
            SettingsError: As `ask`.

        Examples:
            >>> import medalign
            >>> student = medalign.load_student("medalign-demo/student", template="plain", device="cpu")
            >>> image = "medalign-demo/phantoms/images/00000.png"
            >>> answers = student.ask_batch([(image, "Is there a lesion?"), (image, "Describe the image.")])
            >>> [answer.finish for answer in answers]
            ['end', 'end']
        """
        check_positive(batch_size=(batch_size,), max_new_tokens=(max_new_tokens,))
        decoded = choose_decoding(decoding, settings, max_new_tokens=max_new_tokens)
        given = _questions(questions)
        with progress_of(progress) as shown, _turn(self.model):
            return answer_questions(self, given, decoded, batch_size=batch_size, progress=shown)

    @overload
    def attend(  # type: ignore[overload-overlap]  # a path is a sequence of texts, but is read as a path
        self, image: ImageLike, question: str, layers: Sequence[int] | None = None
    ) -> ImageAttention: ...

    @overload
    def attend(
        self, image: Sequence[ImageLike], question: str, layers: Sequence[int] | None = None
    ) -> tuple[ImageAttention, ...]: ...

    def attend(
        self, image: Images, question: str, layers: Sequence[int] | None = None
    ) -> ImageAttention | tuple[ImageAttention, ...]:
        """Read where the student looks when it begins to answer a question, as `medalign student attend` does.

        One forward pass over the prompt, with fused attention (sdpa): eager attention is not needed.

        Args:
            image: A path, a Pillow image, or uint8 pixels, as `ask` takes them; or a list of these for a question
                about several images.
            question: The question, without a prompt template.
            layers: Zero-based decoder layers; default: all.

        Returns:
            The record of the image, or a tuple of records if `image` is a list, one for each image in order.

        Raises:
            InputError: An image cannot be read or there is none, the prompt is too long for the student, or attention
                is not finite.
            SettingsError: The question is empty, or the student has no such layer.

        Examples:
            >>> import medalign
            >>> student = medalign.load_student("medalign-demo/arms/medalign", device="cpu")
            >>> seen = student.attend("medalign-demo/phantoms/images/00000.png", "Is there a lesion?")
            >>> seen.maps.shape, seen.mean.shape, seen.aligned_layers
            (torch.Size([6, 64]), torch.Size([64]), (3,))
            >>> all(0 < share < 1 for share in seen.shares)
            True
        """
        check_texts(question=(question,))
        chosen, images = _layers(layers), images_of(image)
        decoded = [decode_given(each) for each in images]
        with _turn(self.model):
            records = read_attention(self, decoded, question, chosen)
        return records if isinstance(image, list | tuple) else records[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about this student's answers, for example that its prompt template was guessed."""
        return tuple(template_warnings(self))

    def __repr__(self) -> str:
        adapter = "no adapter" if self.adapter is None else f"adapter of layers {list(self.adapter.layers)}"
        return (
            f"<Student {str(self.base)!r}: {adapter}, {self.dtype} on {self.model.device}, "
            f"template {self.template_name}, {self.images.grid} image tokens>"
        )


_turns: WeakKeyDictionary[Module, Lock] = WeakKeyDictionary()


def _turn(model: Module) -> Lock:
    """The lock of a model, which one thread at a time may run: the hooks of a pass belong to the model."""
    return _turns.setdefault(model, Lock())


def _layers(layers: Any) -> list[int] | None:
    """Layer numbers as a list, or None.

    Raises:
        SettingsError: They are not a list of whole numbers.
    """
    if layers is None:
        return None
    numbers: list[Any] = list(layers) if isinstance(layers, Iterable) else [None]
    if any(isinstance(number, bool) or not isinstance(number, int | np.integer) for number in numbers):
        raise SettingsError(f"layers must be a list of whole numbers such as [3, 7], not {layers!r}")
    return [int(number) for number in numbers]


def _questions(pairs: Any) -> list[Question]:
    """Pairs of images and question as records.

    Raises:
        SettingsError: `pairs` is not a list of pairs, or a question is not text.
        InputError: An item is not an image.
    """
    if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable):
        raise SettingsError(f"questions must be a list of pairs (image, question), not {type(pairs).__name__}")
    questions = []
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise SettingsError(f"question {number} must be a pair (image, question), not {pair!r}")
        check_texts(**{f"question {number}": (pair[1],)})
        questions.append(Question(text=pair[1], images=images_of(pair[0])))
    return questions


def load_student(
    student: AnyPath,
    *,
    adapter: AnyPath | None = None,
    template: str | None = None,
    device: str | None = None,
    dtype: DtypeChoice = "auto",
    keep_lora_apart: bool = False,
) -> Student:
    """Load a student for inference.

    Args:
        student: A base model folder, or an adapter folder from `train`, which records its base.
        adapter: The adapter folder, if `student` is its base.
        template: Prompt template; default: that of the adapter, else of the base (docs/students.md).
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        dtype: Precision of the forward pass; `auto`: that of the adapter's training, else that of the stored base.
        keep_lora_apart: Keep LoRA separate instead of merging it into the weights (slower).

    Raises:
        InputError: A folder is incomplete, or the adapter was trained on another base.
        SettingsError: The device, dtype or template does not exist, or there is no LoRA to keep separate.

    Examples:
        >>> import medalign
        >>> student = medalign.load_student("medalign-demo/arms/medalign", device="cpu")
        >>> student.dtype, str(student.images.grid)
        ('float32', '8x8')
    """
    check_choices(dtype=(str(dtype), get_args(DtypeChoice)))
    folder, adapter_path = local_path("student", student), optional_path("adapter", adapter)
    if keep_lora_apart:
        check_has_lora(folder, adapter_folder(folder, adapter_path))
    loaded = load(
        folder,
        adapter=adapter_path,
        device=pick_device(device),
        dtype=dtype,
        template=template,
        keep_lora_apart=keep_lora_apart,
    )
    return Student(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})
