"""The plan of a run: what is trained, how many steps, how much memory, which rows."""

import polars as pl
import pytest
from labs import QUESTIONS, lab_settings, make_lab
from medalign.errors import InputError
from medalign.pipeline.manifest import Manifest
from medalign.pipeline.planning import plan_training
from medalign.pipeline.settings import Settings
from medalign.pipeline.training import run_training
from medalign.progress import Silent


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


def settings_with(lab, trainable=None, **training) -> Settings:
    return Settings.model_validate(lab_settings(lab, **training) | {"trainable": trainable or {}})


def test_the_plan_says_what_a_run_would_do(lab):
    plan = plan_training(settings_with(lab, {"projector": "full", "vision_tower": "lora"}, max_steps=None, epochs=2))
    summary = plan.summary()
    for part in ("language_model", "projector", "vision_tower", "rotation"):
        assert summary[f"trainable_{part}"] == plan.trainable[part] > 0
    assert summary["trainable_rotation"] == 64 * 64
    assert summary["learning_rate_language_model"] == 1e-2
    assert summary["learning_rate_projector"] == pytest.approx(1e-3)
    assert summary["train_questions"] == QUESTIONS - 4
    assert summary["optimiser_steps"] == 2 * 5, "18 questions are 9 batches of 2, and 5 steps of 2 batches"
    assert summary["longest_sample_tokens"] == max(plan.train.lengths)
    assert summary["store_rows"] == "13 of 13 images"
    memory = summary["memory_gib"]
    parts = ("weights", "gradients", "optimiser", "activations")
    assert memory["total"] == pytest.approx(sum(memory[name] for name in parts), abs=0.003)


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
    settings = settings_with(lab, max_steps=None, epochs=0.5)
    planned = plan_training(settings).summary()["optimiser_steps"]
    assert run_training(settings, lab / "run", Silent()).result.planned_steps == planned


def test_a_sample_that_is_too_long_is_told_before_anything_is_trained(lab):
    with pytest.raises(InputError, match=r"question \d+ has \d+ tokens, more than training\.max_length 100"):
        plan_training(settings_with(lab, max_length=100))
