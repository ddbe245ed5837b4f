"""Settings of the alignment losses on their way through plan, training, record and resume."""

import json

import pytest
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.training import plan as planning
from medalign.pipeline.training import plan_checks
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import settings_of
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.inputs.collation import AlignmentCollator


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


def settings_with(lab, alignment, **training) -> Settings:
    settings = lab_settings(lab, **{"max_steps": 1} | training)
    settings["alignment"] |= alignment
    settings["data"]["validation_split"] = "validation"
    return Settings.model_validate(settings)


def losses(out) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("rows", ["answer", "both"])
def test_the_plan_counts_the_attention_rows(lab, monkeypatch, rows):
    shapes, estimate = [], planning.estimate_memory
    monkeypatch.setattr(
        planning, "estimate_memory", lambda *args, **kw: shapes.append(args[2]) or estimate(*args, **kw)
    )
    plan = plan_training(settings_with(lab, {"attention_rows": rows}))
    batch = AlignmentCollator.of(plan.student, plan.student.model.attention_rows)(plan.train.__getitems__(range(18)))
    assert shapes[0].attention_rows == batch["layout"].rows.index.shape[1] > 0
    assert plan.summary()["attention_rows"] == rows


def test_attention_rows_are_trained_evaluated_recorded_and_kept_by_resume(lab, tmp_path):
    out = tmp_path / "answer"
    settings = settings_with(lab, {"attention_rows": "answer"}, gradient_checkpointing="non_reentrant")
    run_training(settings, out, Silent())
    run_training(settings_with(lab, {}), tmp_path / "question", Silent())
    for name in ("loss_att", "eval_loss_att"):
        answer, question = ([line[name] for line in losses(folder) if name in line] for folder in
                            (out, tmp_path / "question"))  # fmt: skip
        assert len(answer) == len(question) > 0
        assert abs(answer[0] - question[0]) > 1e-5
    assert read_adapter_record(out).settings["alignment"]["attention_rows"] == "answer"
    with pytest.raises(InputError, match="attention_rows: answer before, both now"):
        run_training(settings_with(lab, {"attention_rows": "both"}), out, Silent(), resume=True)


@pytest.mark.parametrize(
    ("alignment", "problem"),
    [
        ({"beta": 0, "attention_rows": "answer"}, "attention_rows is 'answer', but beta is 0"),
        ({"beta": 0, "attention_targets": "regions"}, "attention_targets is 'regions', but beta is 0"),
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
