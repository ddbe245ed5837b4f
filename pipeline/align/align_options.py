"""A plan of `student align` as arguments of the student's side: features, options, and the adapter's record."""

from pathlib import Path

from ...student.adapters.adapter_folder import AdapterRecord
from ...student.adapters.trainable import LearningRates
from ...student.loading.student_loading import Student
from ...student.training.training_options import TrainingOptions
from ...student.translation.preparation import PreparationOptions
from ...student.translation.regression import RegressionOptions
from ...student.translation.token_data import FeatureSource, RandomFeatures, StoreFeatures
from ..devices import pick_device
from ..training.run_folder import how_trained, start_record, store_record
from .align_images import digest_images
from .align_plan import AlignPlan, trainable_parts

_READ_AT_ONCE = 16
"""Images of which tokens are only computed."""


def feature_sources(plan: AlignPlan) -> tuple[FeatureSource, FeatureSource | None]:
    """Where features come from, and random ones to compare them with: the store and the control's network.

    In a run of the control, the random features are the source, and nothing is compared.
    """
    random = RandomFeatures(
        grid=plan.student.images.grid, channels=plan.store.header.width, seed=plan.settings.training.seed
    )
    return (StoreFeatures(store=plan.store), random) if plan.settings.translation.control == "none" else (random, None)


def adapter_record(plan: AlignPlan, out: Path) -> AdapterRecord:
    """The record of the adapter that a run writes to `out`."""
    student, sets = plan.student, plan.sets
    parts = trainable_parts(plan.settings)
    rotations = student.model.rotations
    return AdapterRecord(
        base=str(student.base.resolve()),
        base_fingerprint=student.base_fingerprint,
        layers=tuple(rotations),
        rotation="full" if rotations else "none",
        template=student.template_name,
        attention_normalisation=student.model.attention_normalization,
        store=store_record(plan.store),
        settings=plan.settings.model_dump(mode="json"),
        data_use=plan.data_use,
        trained=how_trained(parts),
        prompt=student.prompt,
        questions_sha256=digest_images(sets.targets, sets.held_out_targets, sets.anchors, sets.held_out_anchors),
        start=start_record(student.start, out),
    )


def regression_options(plan: AlignPlan) -> RegressionOptions:
    """Options of translation and regression."""
    settings = plan.settings
    return RegressionOptions(
        preparation=PreparationOptions(
            ridge=settings.translation.ridge,
            control=settings.translation.control,
            store_fingerprint=plan.store.header.fingerprint,
            base_fingerprint=_before(plan.student),
            anchors_sha256=digest_images(plan.sets.anchors, plan.sets.held_out_anchors),
        ),
        minimum_r2=settings.translation.minimum_r2,
        minimum_skill=settings.translation.minimum_skill,
        keep=settings.translation.keep,
        targets_per_step=settings.training.targets_per_step,
        anchors_per_step=settings.training.anchors_per_step,
        steps=settings.training.steps,
        batch_size=_READ_AT_ONCE,
    )


def _before(student: Student) -> str:
    """Fingerprint of the student whose tokens the translation predicts."""
    start = student.start
    return student.base_fingerprint + ("" if start is None else f"+{start.adapter_fingerprint}")


def training_options(plan: AlignPlan) -> TrainingOptions:
    """Options of the training loop."""
    settings, training = plan.settings, plan.settings.training
    return TrainingOptions(
        alpha=0.0,
        beta=0.0,
        learning_rates=LearningRates(
            language_model=training.learning_rate,
            projector=settings.projector_learning_rate,
            vision_tower=training.learning_rate,
            rotation=training.learning_rate,
            lora_b_ratio=settings.lora.b_rate,
        ),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_ratio=training.warmup_ratio,
        num_train_epochs=1.0,
        max_steps=training.steps,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        eval_steps=None,
        save_steps=training.save_steps,
        logging_steps=training.logging_steps,
        patience=None,
        group_by_length=False,
        gradient_checkpointing=None,
        sharding=None,
        report_to=(),
        precision=settings.student.precision,
        dataloader_num_workers=training.dataloader_num_workers,
        seed=training.seed,
        device=pick_device(training.device),
    )
