"""Settings of the alignment losses on their way through plan, training, record and resume."""

import itertools
import json
import math

import pytest
import torch
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.data.manifest import Manifest
from medalign.pipeline.data.samples import answered_samples
from medalign.pipeline.training import plan as planning
from medalign.pipeline.training import plan_checks
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.step_shape import largest_step
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.inputs.collation import AlignmentCollator
from medalign.student.loading.student_loading import open_student
from medalign.teacher_cache.store import open_store


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


def settings_with(lab, alignment, **training) -> Settings:
    settings = lab_settings(lab, **{"max_steps": 1} | training)
    settings["alignment"] |= alignment
    settings["data"]["validation_split"] = "validation"
    settings["lora"]["lora_dropout"] = 0.0
    return Settings.model_validate(settings)


def losses(out) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_plan_counts_the_attention_rows(lab, monkeypatch):
    shapes, estimate = [], planning.estimate_memory
    monkeypatch.setattr(
        planning, "estimate_memory", lambda *args, **kw: shapes.append(args[2]) or estimate(*args, **kw)
    )
    plan = plan_training(settings_with(lab, {"attention_rows": "answer"}))
    assert plan.summary()["attention_rows"] == "answer"
    both = largest_step(settings_with(lab, {"attention_rows": "both"}), plan.student, plan.samples, 99)
    for rows, shape in (("answer", shapes[0]), ("both", both)):
        batch = AlignmentCollator.of(plan.student, rows)(plan.train.__getitems__(range(18)))
        assert shape.attention_rows == batch["layout"].rows.index.shape[1] > 0


def loop_cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def loop_weighted(X, E_v, E_a):
    """L_vis of an image, weighted by E_a of both patches, divided by its sum."""
    total = 0.0
    for i, j in itertools.product(range(len(X)), repeat=2):
        total += E_a[i] * E_a[j] / sum(E_a) ** 2 * (loop_cosine(E_v[i], E_v[j]) - loop_cosine(X[i], X[j])) ** 2
    return total


@torch.no_grad()
def slow_means(plan, data):
    """Mean L_att of the plan's rows and of the question's rows, and mean weighted L_vis, of all images."""
    means = {}
    for rows in (plan.student.model.attention_rows, "question"):
        batch = AlignmentCollator.of(plan.student, rows)(data.__getitems__(range(len(data))))
        output = plan.student.model.eval()(**batch)
        means[rows] = float(output.loss_att.mean())
    parts = zip(output.layers[0].tokens.tolist(), batch["E_v"].tolist(), batch["E_a"].tolist(), strict=True)
    visual = [loop_weighted(*image) for image in parts]
    return means, sum(visual) / len(visual)


def test_rows_and_weights_are_trained_evaluated_recorded_and_kept_by_resume(lab, tmp_path):
    out, variant = tmp_path / "run", {"attention_rows": "answer", "visual_weights": "teacher"}
    shape = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 6, "learning_rate": 1e-8}
    settings = settings_with(lab, variant, gradient_checkpointing="non_reentrant", **shape)
    run_training(settings, out, Silent())
    plan = plan_training(settings)
    for prefix, data in (("", plan.train), ("eval_", plan.validation)):
        (logged,) = (line for line in losses(out) if f"{prefix}loss_att" in line)
        attention, visual = slow_means(plan, data)
        assert logged[f"{prefix}loss_att"] == pytest.approx(attention["answer"], abs=1e-6)
        assert abs(attention["answer"] - attention["question"]) > 1e-5
        assert logged[f"{prefix}loss_vis"] == pytest.approx(visual, abs=1e-6)
    summary, alignment = plan.summary(), read_adapter_record(out).settings["alignment"]
    assert (summary["visual_weights"], alignment["visual_weights"]) == ("teacher", "teacher")
    assert alignment["attention_rows"] == "answer"
    with pytest.raises(InputError, match=r"attention_rows: answer before, both now\s+alignment.visual_w"):
        run_training(settings_with(lab, {"attention_rows": "both"}), out, Silent(), resume=True)


def test_weights_need_E_a_where_regions_are_the_targets(lab):
    dataset = AlignmentDataset(
        open_student(lab / "student", layers=(), rotation="none"),
        answered_samples(Manifest.read(lab / "manifest.parquet")),
        open_store(lab / "store.zarr"),
        max_length=999,
        attention_targets="regions",
        visual_weights="teacher",
    )
    sample = dataset[1]
    assert sample.E_a is None
    assert sample.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("alignment", "problem"),
    [
        ({"beta": 0, "attention_rows": "answer"}, "attention_rows is 'answer', but beta is 0"),
        ({"beta": 0, "attention_targets": "regions"}, "attention_targets is 'regions', but beta is 0"),
        ({"alpha": 0, "visual_weights": "teacher"}, "visual_weights is 'teacher', but alpha is 0"),
        ({"alpha": 0, "visual_gradient": ["lora"]}, "visual_gradient is .'lora'., but alpha is 0"),
    ],
)
def test_settings_of_a_loss_that_is_off_are_refused(alignment, problem):
    values = {"student": {"path": "base"}, "data": {"manifest": "m.parquet", "store": "s.zarr"}}
    with pytest.raises(SettingsError, match=problem):
        settings_of(values | {"alignment": alignment})
    settings_of(values | {"alignment": alignment | {"alpha": 1, "beta": 1}})


def test_float16_takes_no_separate_gradient_of_L_vis(monkeypatch):
    """Its loss scale reaches the other terms only."""
    monkeypatch.setattr(plan_checks, "pick_device", lambda wanted: "cuda")
    values = {"student": {"path": "base", "dtype": "float16"}, "data": {"manifest": "m.parquet", "store": "s.zarr"},
              "training": {"device": "cuda"}}  # fmt: skip
    with pytest.raises(SettingsError, match=r"float16 and alignment.visual_gradient \['lora'\].*would underflow"):
        plan_checks.check_precision(settings_of(values, {"alignment.visual_gradient": ["lora"]}))
    plan_checks.check_precision(settings_of(values, {"alignment.visual_gradient": ["lora", "rotation"]}))
