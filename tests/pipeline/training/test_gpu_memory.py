"""Whether a run fits a card: here, elsewhere, and what the plan advises."""

import json
import os
import re

import pytest
from labs import lab_settings, make_lab
from medalign.cli import app
from medalign.errors import SettingsError
from medalign.pipeline.training import gpu_memory
from medalign.pipeline.training.gpu_memory import Card, Fit, fit_to_card, parse_card
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.student.adapters.trainable import TrainableParts, make_trainable
from medalign.student.loading.student_loading import open_student
from medalign.student.training.step_memory import StepShape, estimate_memory
from pretended.sparse import write_sparse
from students import LAYER
from typer.testing import CliRunner

GIB = 2**30


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("text", ["24GB", "24 GiB", "24g", "24.0GB"])
def test_a_card_is_named_by_its_memory(text):
    """An RTX 4090 of 24 GB has 24,564 MiB, an H100 of 80 GB 81,559 MiB."""
    assert parse_card(text).memory == 24 * GIB


@pytest.mark.parametrize("text", ["", "big", "0GB", "-1GB", "24TB", "24MB", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SettingsError, match="--card must be the memory of a GPU with the unit GB, such as 24GB"):
        parse_card(text)


def test_the_plan_says_nothing_of_a_gpu_where_none_is_used(lab):
    assert plan_training(Settings.model_validate(lab_settings(lab))).summary()["gpu_memory"] is None


@pytest.fixture(scope="module")
def fit(lab):
    """Fit of a batch of eight to a card, by its bytes or by a share of what the batch needs."""
    student = open_student(lab / "student", layers=[LAYER], rotation="full")
    parts = TrainableParts(rank=4, alpha=8, dropout=0.1)
    make_trainable(student.model, parts, base=student.base)
    shape = StepShape(samples=8, tokens=100, answer_tokens=9, images=8)

    def fitted(memory: float, **training) -> Fit:
        values = lab_settings(lab, per_device_train_batch_size=8, **training)
        settings = Settings.model_validate(values | {"student": values["student"] | {"dtype": "float32"}})
        estimate = estimate_memory(student.model, parts, shape, precision="float32", checkpointing=None)
        memory = round(memory if memory > 2 else memory * estimate.total)
        return fit_to_card(Card(name="a card", memory=memory), settings, student.model, parts, shape, estimate)

    return fitted


def names(fit) -> list[str]:
    return [text.partition(" (")[0] for text in fit.changes]


def test_changes_are_named_until_one_fits(fit, monkeypatch):
    monkeypatch.setattr(gpu_memory, "RESERVE", 0)
    assert fit(GIB).fits
    assert fit(GIB).changes == ()
    assert fit(GIB).sentence().endswith(" MiB; a card has 1 GiB")
    assert names(fit(0.99)) == ["student.dtype bfloat16"]
    cheapest = ["student.dtype bfloat16", "training.gradient_checkpointing non_reentrant"]
    halved = [
        f"training.per_device_train_batch_size {size} with training.gradient_accumulation_steps {16 // size}"
        for size in (4, 2, 1)
    ]
    nothing = fit(100)
    assert names(nothing) == [*cheapest, *halved]
    assert not nothing.fits_changed
    assert re.search(
        r"does not fit, even with student.dtype bfloat16 .*batch_size 1 with .*\. Use a larger GPU, or try "
        r"student.quantization 4bit or training.sharding fsdp2 on several GPUs$",
        nothing.sentence(),
    )
    assert fit(0.3).fits_changed
    assert names(fit(0.3)) == [*cheapest, halved[0]]
    assert not fit(0.3).fits
    assert "it does not fit. Change, in this order: student.dtype bfloat16" in fit(0.3).sentence()


def test_a_reserve_is_left_for_cuda(fit):
    assert not fit(GIB).fits
    assert "1 GiB are reserved for CUDA" in fit(GIB).sentence()


def test_the_advice_is_what_the_changed_run_plans(lab):
    settings = Settings.model_validate(lab_settings(lab, per_device_train_batch_size=8))
    advised = plan_training(settings, Card(name="none", memory=1)).fit.changes
    values = settings.model_dump()
    values["student"]["dtype"] = "bfloat16"
    values["training"] |= {
        "gradient_checkpointing": "non_reentrant",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
    }
    changed = plan_training(Settings.model_validate(values), Card(name="none", memory=1))
    assert advised[3].endswith(f"({changed.memory.total / 2**20:.1f} MiB)")
    assert changed.fit.changes[0].startswith(
        "training.per_device_train_batch_size 1 with training.gradient_accumulation_steps 16 ("
    )


LAYERS = None if os.environ.get("MEDALIGN_PRETENDED_GPU") == "all" else 1


def test_a_dry_run_at_7b_by_the_real_loading_path(lab, tmp_path):
    """The published width, weights as holes in a sparse file; the sizes of LoRA and W are worked out by hand."""
    student = write_sparse(tmp_path / "llava-med", "llava-med", layers=LAYERS)
    layers = LAYERS or 32
    values = {
        "student": {"path": str(student), "dtype": "bfloat16"},
        "data": {"manifest": str(lab / "manifest.parquet")},
        "alignment": {"layer": layers - 1, "alpha": 0, "beta": 0},
        "lora": {"r": 64, "lora_alpha": 16},
        "training": {"per_device_train_batch_size": 8, "max_length": 1024, "device": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    command = ["student", "train", str(tmp_path / "config.yaml"), "--dry-run", "--card", "24GB", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    lora = 64 * (2 * 8192 + 2 * 5120 + 3 * 18432)  # q and o, k and v, gate, up and down: in + out
    assert plan["trainable_language_model"] == layers * lora
    assert plan["trainable_rotation"] == 4096**2
    base = (student / "model.safetensors").stat().st_size / GIB
    trained = 4 * (layers * lora + 4096**2) / GIB
    assert plan["memory_gib"]["weights"] == pytest.approx(base + trained, rel=0.02)
    assert "GiB; a GPU with 24 GiB has 24 GiB" in plan["gpu_memory"]


def test_a_card_is_for_the_plan(tmp_path):
    done = CliRunner().invoke(app, ["student", "train", "c.yaml", "--out", str(tmp_path / "o"), "--card", "24GB"])
    assert done.exit_code == 2
    assert "--card 24GB only applies to the plan: add --dry-run" in " ".join(done.output.split())
