"""A run of the label-free stage: translate, check, regress, and measure what changed."""

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments

from ...errors import InputError
from ...progress import Progress
from ..adapters.adapter_folder import AdapterRecord
from ..loading.student_loading import Student
from ..processes import Processes
from ..training.training_options import AUTOCAST, TrainingOptions
from ..training.training_run import TrainingResult, run_trainer
from .preparation import (
    FOLDER,
    TOKENS_FILE,
    TRANSLATION_FILE,
    ImageSets,
    PreparationOptions,
    Reader,
    measure_anchors,
    measure_targets,
    prepare,
    token_file,
)
from .regression_trainer import RegressionTrainer
from .token_data import FeatureSource, MixedOrder, TokenDataset, collate_tokens
from .token_regressor import TokenRegressor
from .translation import TranslationFacts, load_translation


@dataclass(frozen=True, kw_only=True)
class RegressionOptions:
    """Options of a run beyond those of the training loop."""

    preparation: PreparationOptions
    minimum_r2: float
    """Smallest R^2 on held-out anchors with which the student is trained; not applied to a control."""
    minimum_skill: float | None
    """Smallest skill score against random features with which it is trained; None: not applied, nor to a control."""
    keep: float
    """Weight of the loss that keeps the anchors' tokens."""
    targets_per_step: int
    anchors_per_step: int
    steps: int
    batch_size: int
    """Images read together while tokens are only computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressionResult:
    """What a run did, and what it changed."""

    training: TrainingResult
    translation: TranslationFacts
    target_r2: float | None = None
    """R^2 of the trained student's tokens of held-out targets; None if the run was interrupted."""
    anchors_moved: float | None = None
    """Mean squared change of the tokens of held-out anchors, in units of their variance."""


def regress_student(
    student: Student,
    record: AdapterRecord,
    sets: ImageSets,
    source: FeatureSource,
    random: FeatureSource | None,
    options: RegressionOptions,
    training: TrainingOptions,
    out: Path,
    progress: Progress,
    *,
    resume: bool = False,
) -> RegressionResult:
    """Train tower and projector so that the tokens of targets become their translations; write the adapter to `out`.

    `random` are random features that the translation is compared with; None if they are the `source`.
    Ctrl-C and `resume` are those of `run_trainer`. In each process the language model stays where it is.

    Raises:
        InputError: The translation is not good enough, or an image cannot be read.
        StoreError: A row is missing or damaged.
        MedalignError: A loss, a gradient or a weight is not finite, or the disk is full.
    """
    regressor = TokenRegressor(student.model)
    reader = Reader(
        regressor=regressor,
        images=student.images,
        source=source,
        random=random,
        autocast=AUTOCAST[training.precision],
        batch_size=options.batch_size,
    )

    def make_trainer(arguments: TrainingArguments, callbacks: list[TrainerCallback]) -> RegressionTrainer:
        regressor.to(arguments.device)
        if arguments.should_save:
            prepare(reader, sets, options.preparation, out, progress)
        PartialState().wait_for_everyone()
        translation, facts = load_translation(out / FOLDER / TRANSLATION_FILE)
        try:
            check_translation(facts, options)
        except InputError:
            if arguments.should_save:  # large, and made of the images
                (out / FOLDER / TOKENS_FILE).unlink(missing_ok=True)
            raise
        regressor.translate_with(translation, facts.variance)
        sizes = (len(sets.targets), len(sets.anchors))
        per_step = (options.targets_per_step, options.anchors_per_step)
        return RegressionTrainer(
            student,
            regressor,
            record,
            training,
            TokenDataset(student.images, sets.targets, sets.anchors, source, token_file(out, sets, reader, facts)),
            MixedOrder(sizes, per_step, steps=options.steps, seed=training.seed),
            keep=options.keep,
            args=arguments,
            data_collator=collate_tokens,
            callbacks=callbacks,
        )

    if (
        resume and Processes.of_environment().writes
    ):  # a finished run, whose adapter is restored, has no tokens any more
        regressor.to(training.device)
        prepare(reader, sets, options.preparation, out, progress)
    result = run_trainer(student, record, training, make_trainer, out, progress, evaluate=False, resume=resume)
    translation, facts = load_translation(out / FOLDER / TRANSLATION_FILE)
    if result.interrupted or not Processes.of_environment().writes:
        return RegressionResult(training=result, translation=facts)
    regressor.to(training.device)
    tokens = token_file(out, sets, reader, facts)
    return RegressionResult(
        training=result,
        translation=facts,
        target_r2=measure_targets(reader, sets, translation.to(training.device), progress),
        anchors_moved=measure_anchors(reader, sets, tokens, facts.variance, progress),
    )


def check_translation(facts: TranslationFacts, options: RegressionOptions) -> None:
    """Check that a translation is that of this run, and good enough; a control may be worse.

    Raises:
        InputError: It is not.
    """
    own = options.preparation
    others = [
        name
        for name in ("ridge", "control", "store_fingerprint", "base_fingerprint", "anchors_sha256")
        if getattr(facts, name) != getattr(own, name)
    ]
    if others:
        raise InputError(
            f"the translation in the run's folder has another {', '.join(others)}. Start a new run with another --out"
        )
    if own.control == "none" and (reasons := _too_poor(facts, options)):
        limits = " and ".join(f"translation.{name}" for name in reasons)
        raise InputError(
            f"the student was not trained: the translation explains {facts.r2:.3f} of the variance of the tokens of "
            f"{facts.held_out} held-out anchors (R^2){''.join(reasons.values())}. Use more anchors (now "
            f"{facts.fitted}), a teacher that has learned what they show, or anchors that the student reads well; or "
            f"lower {limits}"
        )


def _too_poor(facts: TranslationFacts, options: RegressionOptions) -> dict[str, str]:
    """Setting -> what a translation misses of it."""
    reasons, minimum, skill = {}, options.minimum_skill, facts.skill
    if not facts.r2 >= options.minimum_r2:
        reasons["minimum_r2"] = (
            f", less than translation.minimum_r2 {options.minimum_r2:g}; the mean token of each cell alone explains "
            f"{facts.r2_position:.3f}"
        )
    if minimum is not None and skill is not None and not skill >= minimum:
        reasons["minimum_skill"] = (
            f". Random features of the pixels explain {facts.r2_random:.3f}; the teacher explains {skill:.3f} of what "
            f"they leave (its skill), less than translation.minimum_skill {minimum:g}. On phantoms, a teacher that had "
            "learned nothing, with a skill of 0.1, made answers worse"
        )
    return reasons
