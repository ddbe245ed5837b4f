"""Settings of a training run that are right by themselves and not together, and settings that would do nothing."""

from .settings import Settings


def setting_conflicts(settings: Settings) -> list[str]:
    """Settings that are right by themselves and not together."""
    alignment, student, training, data = settings.alignment, settings.student, settings.training, settings.data
    problems = []
    if alignment.image_tokens == "teacher" and data.store is None:
        problems.append(
            "alignment.image_tokens is 'teacher', but data.store is not set. Name the teacher store whose E_v the "
            "image tokens are projected from"
        )
    elif alignment.uses_store and data.store is None:
        problems.append(
            f"alignment.alpha is {alignment.alpha} and beta {alignment.beta}, but data.store "
            "is not set. Name a teacher store (`medalign teacher extract` makes one) or set both weights to 0."
        )
    if alignment.uses_regions and alignment.attention_targets == "both" and alignment.required_geometry == "crop":
        problems.append(
            "alignment.attention_targets is 'both' with geometry 'crop': cell (i, j) of E_a is then different tissue "
            "from cell (i, j) of the regions, which lie on the padded square that the student sees, so their mean has "
            "no meaning. Set alignment.geometry to pad (with a store of that geometry), or attention_targets to "
            "regions"
        )
    problems += _teacher_token_conflicts(settings)
    if alignment.query_experts:
        problems += _query_expert_conflicts(settings)
    problems += _settings_without_effect(settings)
    problems += _visual_gradient_conflicts(settings)
    if student.quantization is not None and training.sharding is not None:
        problems.append(
            f"student.quantization is {student.quantization!r} and training.sharding "
            f"{training.sharding!r}: a quantized student cannot be sharded; set one of them to null"
        )
    if training.patience is not None and data.validation_split is None:
        problems.append(
            f"training.patience is {training.patience}, but data.validation_split is not set: name "
            "the split whose loss decides when to stop"
        )
    if data.validation_split == data.train_split:
        problems.append(
            f"data.validation_split and data.train_split are both {data.train_split!r}: the validation loss needs "
            "questions that are not trained on; name another split, or null for no evaluation"
        )
    return problems


def _settings_without_effect(settings: Settings) -> list[str]:
    """Settings of a loss that is off."""
    alignment = settings.alignment
    problems = []
    defaults = {"attention_rows": "question", "attention_targets": "teacher"}
    for name, default in defaults.items():
        value = getattr(alignment, name)
        if not alignment.beta and value != default:
            problems.append(
                f"alignment.{name} is {value!r}, but beta is 0, so there is no L_att that it could change: set beta "
                f"above 0, or set {name} to {default}"
            )
    if not alignment.alpha and alignment.visual_gradient != "all":
        problems.append(
            f"alignment.visual_gradient is {list(alignment.visual_gradient)}, but alpha is 0, so there is no L_vis "
            "whose gradient it could limit: set alpha above 0, or set visual_gradient to all"
        )
    if not alignment.alpha and alignment.visual_weights != "uniform":
        problems.append(
            f"alignment.visual_weights is {alignment.visual_weights!r}, but alpha is 0, so there is no L_vis that it "
            "could weight: set alpha above 0, or set visual_weights to uniform"
        )
    if settings.trainable.teacher_projection_learning_rate is not None and alignment.image_tokens != "teacher":
        problems.append(
            "trainable.teacher_projection_learning_rate is "
            f"{settings.trainable.teacher_projection_learning_rate}, but alignment.image_tokens is "
            f"{alignment.image_tokens!r}, so there is no such projection: set one of them back to its default"
        )
    return problems


def _teacher_token_conflicts(settings: Settings) -> list[str]:
    """What cannot be set along with image tokens that are projected from the teacher's features."""
    alignment, trainable = settings.alignment, settings.trainable
    if alignment.image_tokens != "teacher":
        return []
    replaced = "alignment.image_tokens is 'teacher'"
    problems = []
    if alignment.alpha or alignment.beta or alignment.rotation != "none":
        problems.append(
            f"{replaced}, the arm without distillation, but alignment.alpha is {alignment.alpha}, beta "
            f"{alignment.beta} and rotation {alignment.rotation!r}: set alpha and beta to 0 and rotation to none"
        )
    if trainable.projector != "none" or trainable.vision_tower != "none":
        problems.append(
            f"{replaced}, so that neither tower nor projector runs, but trainable.projector is {trainable.projector!r} "
            f"and vision_tower {trainable.vision_tower!r}: set both to none"
        )
    if settings.training.sharding is not None:
        problems.append(
            f"{replaced}, whose projection is not sharded, but training.sharding is {settings.training.sharding!r}: "
            "set it to null"
        )
    return problems


def _query_expert_conflicts(settings: Settings) -> list[str]:
    """What cannot be set along with query experts."""
    alignment, training = settings.alignment, settings.training
    problems = []
    if training.sharding is not None:
        problems.append(
            f"alignment.query_experts is true, whose weights are not sharded, but training.sharding is "
            f"{training.sharding!r}: set it to null"
        )
    if alignment.visual_gradient != "all":
        problems.append(
            f"alignment.query_experts is true, but visual_gradient is {list(alignment.visual_gradient)}, which cannot "
            "name the experts: set visual_gradient to all"
        )
    return problems


def _visual_gradient_conflicts(settings: Settings) -> list[str]:
    """Why L_vis cannot change only the parts that alignment.visual_gradient names."""
    alignment, training = settings.alignment, settings.training
    if alignment.visual_gradient == "all" or not alignment.alpha:
        return []
    named, trained = set(alignment.visual_gradient), set(settings.trained_parts)
    problems = []
    if frozen := sorted(named - trained):
        problems.append(
            f"alignment.visual_gradient names {', '.join(frozen)}, which this run does not train: remove it, or train "
            "it (trainable.language_model, projector or vision_tower; alignment.rotation)"
        )
    if alignment.rotation == "train_only" and "rotation" not in named:
        problems.append(
            "alignment.visual_gradient does not name rotation, but alignment.rotation is train_only, so that W would "
            "learn from nothing: name it, or set alignment.rotation to none"
        )
    if named >= trained:
        return problems
    if training.sharding is not None:
        problems.append(
            f"alignment.visual_gradient is {list(alignment.visual_gradient)} and training.sharding "
            f"{training.sharding!r}: the separate gradient of L_vis needs whole parameters; set sharding to null"
        )
    if training.gradient_checkpointing == "reentrant":
        problems.append(
            f"alignment.visual_gradient is {list(alignment.visual_gradient)} and training.gradient_checkpointing "
            "'reentrant', which allows no separate gradient of L_vis: set it to non_reentrant"
        )
    return problems
