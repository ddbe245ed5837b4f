"""Before the regression: old tokens of the anchors, the translation, and how well it translates.

The first process computes; the others wait and read its files. Files lie in a folder of their own inside the run's,
because an adapter folder has no weight files except those of the adapter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import Float
from torch import Tensor

from ...atomic import AtomicFile
from ...errors import InputError
from ...progress import Progress
from ..file_errors import writing
from ..finite import is_finite
from ..inputs.collation import SampleImage
from ..inputs.image_processing import StudentImages
from ..transfer import to_device
from .ridge import Determination, RidgeSolution, RidgeSums
from .token_data import FeatureSource, TokenFile, read_image_pixels
from .token_regressor import TokenRegressor
from .translation import Translation, TranslationFacts, load_translation, save_translation

FOLDER = "translation"
TRANSLATION_FILE = "translation.safetensors"
TOKENS_FILE = "anchor-tokens.bin"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSets:
    """The images of a run; each list in a fixed order."""

    targets: Sequence[SampleImage]
    """Trained on."""
    held_out_targets: Sequence[SampleImage]
    anchors: Sequence[SampleImage]
    """The translation is fitted on these, and their tokens are kept."""
    held_out_anchors: Sequence[SampleImage]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparationOptions:
    """How to prepare a run."""

    ridge: float
    control: str
    store_fingerprint: str
    base_fingerprint: str
    anchors_sha256: str


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads images and features, and computes tokens batch by batch."""

    regressor: TokenRegressor
    images: StudentImages
    source: FeatureSource
    """The teacher's features, or the control's."""
    random: FeatureSource | None
    """Random features, whose translation is only measured; None if they are the source."""
    autocast: torch.dtype | None
    batch_size: int

    @property
    def fitted(self) -> Sequence[FeatureSource]:
        """The sources that a translation is fitted for; the first is the one that trains."""
        return [self.source] if self.random is None else [self.source, self.random]

    def batches(
        self, chosen: Sequence[SampleImage], progress: Progress, sources: Sequence[FeatureSource]
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Features of each source and current tokens, on the CPU.

        Raises:
            InputError: An image cannot be read, or its tokens are not finite.
        """
        self.regressor.eval()
        for start in range(0, len(chosen), self.batch_size):
            part = chosen[start : start + self.batch_size]
            pixels = read_image_pixels(self.images, part)
            with torch.no_grad():  # not around the generator, whose caller runs in between
                tokens = self.regressor.tokens(to_device(pixels, self.regressor.device), self.autocast).cpu()
            if not is_finite(tokens):
                raise InputError(
                    f"the image tokens of {part[0].path} or one of the next {len(part)} images are not finite. Set "
                    "student.dtype to bfloat16 or float32"
                )
            yield [source(part, pixels) for source in sources], tokens
            progress.advance(len(part))

    def translate(self, translation: Translation, features: Tensor) -> Float[Tensor, "images cells width"]:
        """Translate features on the device of the translation."""
        translated: Tensor = translation(to_device(features, translation.mean.device))
        return translated.cpu()


def prepare(
    reader: Reader, sets: ImageSets, options: PreparationOptions, out: Path, progress: Progress
) -> TranslationFacts:
    """Fit and write the translation and the anchors' old tokens, unless an earlier start of the run has.

    The student must not have been trained yet: a resumed run calls this before it loads its checkpoint.

    Raises:
        InputError: An image cannot be read.
        StoreError: A row is missing or damaged.
        MedalignError: The equations have no solution, or the disk is full.
    """
    path = out / FOLDER / TRANSLATION_FILE
    if path.is_file() and (facts := _usable(path, sets, reader)) is not None:
        return facts
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFile(path.parent / TOKENS_FILE) as file:
            progress.start("fitting the translation", len(sets.anchors))
            solutions, dtype = _fit(reader, sets.anchors, options.ridge, file, progress)
            translations = [Translation.of(solution).to(reader.regressor.device) for solution in solutions]
            progress.start("checking it on held-out anchors", len(sets.held_out_anchors))
            translated, by_position = [Determination() for _ in translations], Determination()
            for features, tokens in reader.batches(sets.held_out_anchors, progress, reader.fitted):
                file.write(_raw(tokens))
                for measured, fitted, one in zip(translated, translations, features, strict=True):
                    measured.add(tokens, reader.translate(fitted, one))
                by_position.add(tokens, solutions[0].cell_mean.expand(tokens.shape))
    translation = translations[0]
    facts = TranslationFacts(
        ridge=options.ridge,
        r2=translated[0].r2,
        r2_position=by_position.r2,
        r2_random=translated[-1].r2,
        target_r2=measure_targets(reader, sets, translation, progress),
        variance=solutions[0].variance,
        fitted=len(sets.anchors),
        held_out=len(sets.held_out_anchors),
        tokens_dtype=dtype,
        store_fingerprint=options.store_fingerprint,
        base_fingerprint=options.base_fingerprint,
        anchors_sha256=options.anchors_sha256,
        control=options.control,
    )
    save_translation(translation, facts, path)
    return facts


def token_file(out: Path, sets: ImageSets, reader: Reader, facts: TranslationFacts) -> TokenFile:
    """The old tokens of all anchors, fitted ones first."""
    return TokenFile(
        path=out / FOLDER / TOKENS_FILE,
        images=len(sets.anchors) + len(sets.held_out_anchors),
        cells=reader.images.grid.patches,
        width=int(reader.regressor.config.text_config.hidden_size),
        dtype=facts.tokens_dtype,
    )


def measure_targets(reader: Reader, sets: ImageSets, translation: Translation, progress: Progress) -> float:
    """R^2 of the student's current tokens of held-out targets, as predictions of their translated tokens."""
    progress.start("comparing tokens of held-out targets", len(sets.held_out_targets))
    measured = Determination()
    for (features,), tokens in reader.batches(sets.held_out_targets, progress, [reader.source]):
        measured.add(reader.translate(translation, features), tokens)
    return measured.r2


def measure_anchors(reader: Reader, sets: ImageSets, tokens: TokenFile, variance: float, progress: Progress) -> float:
    """How far the tokens of held-out anchors moved: mean squared difference in units of the tokens' variance."""
    progress.start("comparing tokens of held-out anchors", len(sets.held_out_anchors))
    moved, place = Determination(), len(sets.anchors)
    for _, current in reader.batches(sets.held_out_anchors, progress, []):
        moved.add(tokens.read(range(place, place + len(current))), current)
        place += len(current)
    return moved.residual / (moved.rows * tokens.width * variance)


def _fit(
    reader: Reader, anchors: Sequence[SampleImage], ridge: float, file: BinaryIO, progress: Progress
) -> tuple[list[RidgeSolution], str]:
    """A solution for each source, from all anchors, whose tokens are written to `file`; and the tokens' precision."""
    sums: list[RidgeSums] = []
    dtype = ""
    for features, tokens in reader.batches(anchors, progress, reader.fitted):
        file.write(_raw(tokens))
        if not sums:
            _, cells, width = tokens.shape
            sums = [RidgeSums(cells=cells, channels=one.shape[2], width=width) for one in features]
            dtype = str(tokens.dtype).removeprefix("torch.")
        for products, one in zip(sums, features, strict=True):
            products.add(one, tokens)
    return [products.solve(ridge) for products in sums], dtype


def _raw(tokens: Tensor) -> bytes:
    return tokens.contiguous().view(torch.uint8).numpy().tobytes()


def _usable(path: Path, sets: ImageSets, reader: Reader) -> TranslationFacts | None:
    """What an earlier start wrote; None if the old tokens are incomplete, so both are computed again."""
    _, facts = load_translation(path)
    tokens = token_file(path.parents[1], sets, reader, facts)
    complete = tokens.path.is_file() and tokens.path.stat().st_size == tokens.nbytes
    return facts if complete else None
