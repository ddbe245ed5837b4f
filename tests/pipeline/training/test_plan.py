"""The plan of a run: what is trained, how many steps, how much memory, which rows."""

import polars as pl
import pytest
from labs import QUESTIONS, lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.training import plan as planning
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


def settings_with(lab, trainable=None, **training) -> Settings:
    return Settings.model_validate(lab_settings(lab, **training) | {"trainable": trainable or {}})


def test_the_plan_says_what_a_run_would_do(lab):
    plan = plan_training(
        settings_with(lab, {"projector": "full", "vision_tower": "lora"}, max_steps=None, num_train_epochs=2)
    )
    summary = plan.summary()
    for part in ("language_model", "projector", "vision_tower", "rotation"):
        assert summary[f"trainable_{part}"] == plan.trainable[part] > 0
    assert summary["trainable_rotation"] == 64 * 64
    assert summary["learning_rate_language_model"] == 1e-2
    assert summary["learning_rate_projector"] == pytest.approx(1e-3)
    assert summary["aligned_layer"] == "2 of 4 (counted from 0)"
    assert summary["train_questions"] == QUESTIONS - 4
    assert summary["optimizer_steps"] == 2 * 5, "18 questions are 9 batches of 2, and 5 steps of 2 batches"
    assert summary["longest_sample_tokens"] == max(plan.train.lengths)
    assert summary["store_rows"] == "13 of 13 images"
    memory = summary["memory_gib"]
    parts = ("weights", "gradients", "optimizer", "activations", "temporary")
    assert memory["total"] == pytest.approx(sum(memory[name] for name in parts), abs=0.003)


def test_the_plan_names_aligned_layers_only_if_they_are_used(lab):
    def aligned(**alignment):
        settings = lab_settings(lab)
        settings["alignment"] = {"layer": [1, 3], **alignment}
        return plan_training(Settings.model_validate(settings)).summary()["aligned_layer"]

    assert aligned() == "1, 3 of 4 (counted from 0)"
    assert aligned(alpha=0, beta=0, rotation="none", query_experts=True) == "1, 3 of 4 (counted from 0)"
    assert aligned(alpha=0, beta=0, rotation="none") is None


def test_questions_without_an_answer_teach_nothing(lab, tmp_path):
    whole = Manifest.read(lab / "manifest.parquet")
    answer = (
        pl.when(pl.col("question_id").is_in(["1", "2"]))
        .then(None)
        .when(pl.col("question_id") == "20")
        .then(pl.lit(" "))
    )
    frame = whole.frame.with_columns(answer.otherwise("answer").alias("answer"))
    Manifest(frame, whole.root, "some unanswered").write(tmp_path / "m.parquet")
    settings = lab_settings(lab)
    settings["data"] |= {"manifest": str(tmp_path / "m.parquet"), "validation_split": "validation"}
    plan = plan_training(Settings.model_validate(settings))
    assert {sample.question_id for sample in plan.samples}.isdisjoint({"1", "2"})
    counts = [plan.summary()[key] for key in ("train_questions", "validation_questions", "unanswered_questions")]
    assert counts == [QUESTIONS - 6, 3, 3]


def test_the_planned_steps_are_those_of_the_run(lab):
    settings = settings_with(lab, max_steps=None, num_train_epochs=0.5)
    planned = plan_training(settings).summary()["optimizer_steps"]
    assert run_training(settings, lab / "run", Silent()).result.planned_steps == planned


def test_a_sample_that_is_too_long_is_told_before_anything_is_trained(lab):
    with pytest.raises(InputError, match=r"question .\d+. has \d+ tokens, more than training\.max_length 100"):
        plan_training(settings_with(lab, max_length=100))


def test_a_sample_longer_than_the_models_positions_is_told_with_its_question(lab, tmp_path):
    """The tiny model has 512 positions; max_length alone would let 600 tokens pass."""
    whole = Manifest.read(lab / "manifest.parquet")
    for split, number in (("train", "5"), ("validation", "20")):
        answer = pl.when(pl.col("question_id") == number).then(pl.lit("x" * 600)).otherwise("answer")
        Manifest(whole.frame.with_columns(answer.alias("answer")), whole.root, "long").write(
            tmp_path / f"{split}.parquet"
        )
        settings = lab_settings(lab, max_length=4000)
        settings["data"] |= {"manifest": str(tmp_path / f"{split}.parquet"), "validation_split": "validation"}
        told = rf"question '{number}' has \d+ tokens with its images and its answer, but .* has 512 positions"
        with pytest.raises(InputError, match=told):
            plan_training(Settings.model_validate(settings))


def test_layers_that_do_not_exist_are_refused_before_any_weight_is_read(lab, monkeypatch):
    monkeypatch.setattr(planning, "open_to_train", lambda *_, **__: pytest.fail("weights were read"))
    for layers in (4, [2, 9]):
        settings = lab_settings(lab)
        settings["alignment"]["layer"] = layers
        with pytest.raises(
            SettingsError, match=r"alignment\.layer is [49], but the language model of .* layers 0 to 3"
        ):
            plan_training(Settings.model_validate(settings))


def test_float16_is_not_trained_on_the_cpu(lab):
    settings = lab_settings(lab)
    settings["student"]["dtype"] = "float16"
    with pytest.raises(SettingsError, match=r"student\.dtype is float16, which cannot be trained on the CPU"):
        plan_training(Settings.model_validate(settings))


def test_patience_needs_something_to_evaluate(lab, tmp_path):
    settings = lab_settings(lab, patience=2, eval_steps=9)
    settings["data"]["validation_split"] = "validation"
    told = r"patience is 2 and training\.eval_steps 9, but the run has 8 steps: there is no evaluation before"
    with pytest.raises(SettingsError, match=told):
        plan_training(Settings.model_validate(settings))
    whole = Manifest.read(lab / "manifest.parquet")
    answer = pl.when(pl.col("split") == "validation").then(None).otherwise("answer")
    Manifest(whole.frame.with_columns(answer.alias("answer")), whole.root, "").write(tmp_path / "m.parquet")
    settings["data"]["manifest"] = str(tmp_path / "m.parquet")
    told = (
        r"split 'validation' of .* has no question with an answer: there is nothing to evaluate on; "
        r"set data\.validation_split to another split"
    )
    with pytest.raises(InputError, match=told):
        plan_training(Settings.model_validate(settings))


def test_the_plan_tells_warmup_and_clipping(lab):
    summary = plan_training(settings_with(lab, warmup_ratio=0.3, max_grad_norm=0.5)).summary()
    assert (summary["warmup_steps"], summary["max_grad_norm"]) == (3, 0.5)
