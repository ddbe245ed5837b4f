"""Image tokens at every stage of a student, in one pass per batch: tower, projector, and the input of each layer.

Each stage keeps a few chosen patches of every image and two moments of all patches, so that memory does not depend on
the number of patches. K images, N patches, P chosen patches per image, D width of the stage.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import InputError
from ...progress import Progress
from ...teacher_cache.geometry.cosines import cosine_matrix
from ...teacher_cache.store import TeacherStore
from ..alignment.aligned_student import AlignedStudent
from ..alignment.losses import teacher_cosines
from ..inputs.batch_layout import with_tensors
from ..inputs.collation import Collator, Sample, SampleImage, encode_questions, read_pixels
from ..inputs.spans import ImageSpans, find_images
from ..loading.student_loading import Student
from ..metrics.region_attention import cosine_agreement
from ..transfer import to_device
from .pixel_features import pixel_features

PIXELS, TEACHER, TOWER, PROJECTOR = "pixels", "teacher", "tower", "projector"


def layer_stage(layer: int) -> str:
    """Name of the stage at the input of decoder layer `layer` (zero-based), after W if it is aligned."""
    return f"layer {layer}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTokens:
    """The image tokens of all images at one stage, on the CPU in float32."""

    name: str
    tokens: Float[np.ndarray, "images chosen width"]
    pooled: Float[np.ndarray, "images two_width"]
    """Mean and standard deviation of every channel over all patches of an image."""
    agreement: Float[np.ndarray, " images"]
    """Pearson correlation of the off-diagonal entries of S with the teacher's; nan without a teacher."""


@torch.no_grad()
def capture_tokens(
    student: Student,
    samples: Sequence[Sample],
    chosen: Int[Tensor, "images chosen"],
    store: TeacherStore | None,
    *,
    batch_size: int,
    progress: Progress,
) -> list[StageTokens]:
    """Read the image tokens of samples with exactly one image each at every stage, from pixels to the last layer.

    Image tokens do not depend on the question, because it comes after the image. The input of layer 0 is left out if it
    is the projector's output.

    Raises:
        InputError: an image cannot be read, or tokens are not finite.
        MissingTeacherRow: an image is not in the store.
    """
    collate = Collator(pad_token_id=student.tokenizer.pad_token_id)
    progress.start("reading image tokens", len(samples))
    batches: list[list[StageTokens]] = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        batch = collate(encode_questions(student, part))
        moments = _Moments(chosen=chosen[start : start + batch_size], teacher=_read_cosines(store, part))
        moments.keep(PIXELS, pixel_features(batch["pixel_values"], student.images.grid), compare=False)
        _run(student.model, batch, moments)
        _check_finite(moments.stages, part, student)
        batches.append(moments.stages)
        progress.advance(len(part))
    return _without_repeated_input([_join(stages) for stages in zip(*batches, strict=True)])


@torch.no_grad()
def capture_image_side(
    student: Student,
    samples: Sequence[Sample],
    chosen: Int[Tensor, "images chosen"],
    *,
    batch_size: int,
    progress: Progress,
) -> list[StageTokens]:
    """Read the image tokens of tower and projector alone, without running the language model.

    Raises:
        InputError: an image cannot be read, or tokens are not finite.
    """
    progress.start("reading image tokens", len(samples))
    batches: list[list[StageTokens]] = []
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        pixels = [one for one in (read_pixels(student.images, sample) for sample in part) if one is not None]
        moments = _Moments(chosen=chosen[start : start + batch_size], teacher=None)
        with _projector_hook(student.model, moments):
            student.model.image_tokens(to_device(torch.cat(pixels), student.model.device))
        _check_finite(moments.stages, part, student)
        batches.append(moments.stages)
        progress.advance(len(part))
    return [_join(stages) for stages in zip(*batches, strict=True)]


def capture_teacher(
    store: TeacherStore,
    images: Sequence[SampleImage],
    chosen: Int[Tensor, "images chosen"],
    *,
    batch_size: int,
    progress: Progress,
) -> tuple[StageTokens | None, Float[np.ndarray, "images patches"]]:
    """Read the teacher's E_v as a stage (None from a Gram store, which has only S), and E_a.

    Raises:
        MissingTeacherRow: an image is not in the store.
    """
    progress.start("reading teacher targets", len(images))
    stages: list[StageTokens] = []
    attention: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        targets = store.read([image.image_hash for image in part], [image.pixel_hash for image in part])
        attention.append(targets.E_a.float().cpu().numpy())
        if targets.E_v is not None:
            moments = _Moments(chosen=chosen[start : start + batch_size], teacher=None)
            moments.keep(TEACHER, targets.E_v, compare=False)
            stages += moments.stages
        progress.advance(len(part))
    return _join(stages) if stages else None, np.concatenate(attention)


@dataclass(kw_only=True, eq=False, slots=True)
class _Moments:
    """What is kept of one batch."""

    chosen: Int[Tensor, "images chosen"]
    teacher: Float[Tensor, "images patches patches"] | None
    stages: list[StageTokens] = field(default_factory=list)

    def keep(self, name: str, tokens_KND: Float[Tensor, "images patches width"], *, compare: bool = True) -> None:
        values_KND = tokens_KND.float()
        where = self.chosen.to(values_KND.device)[..., None].expand(-1, -1, values_KND.shape[2])
        moments = [values_KND.mean(dim=1), values_KND.std(dim=1, correction=0)]
        agreement = torch.full((len(values_KND),), torch.nan)
        if compare and self.teacher is not None:
            S_KNN = cosine_matrix(values_KND).cpu()
            agreement = torch.stack([cosine_agreement(*pair) for pair in zip(S_KNN, self.teacher, strict=True)])
        stage = StageTokens(
            name=name,
            tokens=values_KND.gather(1, where).cpu().numpy(),
            pooled=torch.cat(moments, dim=1).cpu().numpy(),
            agreement=agreement.numpy(),
        )
        self.stages.append(stage)


def _run(model: AlignedStudent, batch: dict[str, Tensor], moments: _Moments) -> None:
    """Run one prefill and keep the image tokens of every stage."""
    spans = find_images(batch["input_ids"], model.image_token_id, model.patches)
    images = with_tensors(spans, lambda tensor: to_device(tensor, model.device))
    inputs = {name: to_device(batch[name], model.device) for name in ("input_ids", "attention_mask", "pixel_values")}
    with model.observe(images), _hooks(model, images, moments):
        model.llava(**inputs, logits_to_keep=1, use_cache=False)


@contextmanager
def _hooks(model: AlignedStudent, images: ImageSpans, moments: _Moments) -> Iterator[None]:
    """Hooks that run after the alignment's own, so that they see tokens after W."""

    def at_layer(layer: int) -> Callable[..., None]:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden_BLD = args[0] if args else kwargs["hidden_states"]
            moments.keep(layer_stage(layer), hidden_BLD[images.sample[:, None], images.positions])

        return read

    handles = [
        layer.register_forward_pre_hook(at_layer(number), with_kwargs=True)
        for number, layer in enumerate(model.decoder_layers)
    ]
    try:
        with _projector_hook(model, moments):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _projector_hook(model: AlignedStudent, moments: _Moments) -> Iterator[None]:
    """Keep the tokens of tower and projector."""

    def at_projector(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        moments.keep(TOWER, args[0])
        moments.keep(PROJECTOR, output)

    handle = model.stock.model.multi_modal_projector.register_forward_hook(at_projector)
    try:
        yield
    finally:
        handle.remove()


def _read_cosines(store: TeacherStore | None, samples: Sequence[Sample]) -> Tensor | None:
    if store is None:
        return None
    images = [sample.images[0] for sample in samples]
    targets = store.read([image.image_hash for image in images], [image.pixel_hash for image in images])
    return teacher_cosines(targets.E_v, targets.S)


def _join(stages: Sequence[StageTokens]) -> StageTokens:
    """The batches of one stage."""
    return StageTokens(
        name=stages[0].name,
        tokens=np.concatenate([stage.tokens for stage in stages]),
        pooled=np.concatenate([stage.pooled for stage in stages]),
        agreement=np.concatenate([stage.agreement for stage in stages]),
    )


def _without_repeated_input(stages: list[StageTokens]) -> list[StageTokens]:
    by_name = {stage.name: stage for stage in stages}
    first = by_name[layer_stage(0)]
    if not np.array_equal(first.tokens, by_name[PROJECTOR].tokens):
        return stages
    return [stage for stage in stages if stage is not first]


def _check_finite(stages: Sequence[StageTokens], samples: Sequence[Sample], student: Student) -> None:
    for stage in stages:
        finite = np.isfinite(stage.pooled).all(axis=1)
        if not finite.all():
            raise InputError(
                f"question {samples[int(np.argmin(finite))].question_id!r}: the image tokens at the {stage.name} are "
                f"not finite ({student.dtype}). Use --dtype bfloat16 or float32, and check that the weights contain "
                "no NaN"
            )
