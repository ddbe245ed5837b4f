"""Whether a run fits a card: here, elsewhere, and what the plan advises."""

import json
import os

import pytest
from labs import lab_settings, make_lab
from medalign.cli import app
from medalign.errors import SettingsError
from medalign.pipeline import gpu_memory
from medalign.pipeline.gpu_memory import Card, parse_card
from medalign.pipeline.planning import plan_training
from medalign.pipeline.settings import Settings
from pretended.sparse import write_sparse
from typer.testing import CliRunner

GIB = 2**30


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("text", ["24GB", "24 GiB", "24g", "24"])
def test_a_card_is_named_by_its_memory(text):
    """An RTX 4090 of 24 GB has 24,564 MiB, an H100 of 80 GB 81,559 MiB."""
    assert parse_card(text).memory == 24 * GIB


@pytest.mark.parametrize("text", ["", "big", "0GB", "-1GB", "24TB", "24MB", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SettingsError, match="--card takes a GPU's memory, for example 24GB or 80GB, not"):
        parse_card(text)


def test_the_plan_says_nothing_of_a_gpu_where_none_is_used(lab):
    assert plan_training(Settings.model_validate(lab_settings(lab))).summary()["gpu_memory"] is None


def test_changes_are_named_until_one_fits(lab, monkeypatch):
    monkeypatch.setattr(gpu_memory, "RESERVE", 0)
    settings = Settings.model_validate(lab_settings(lab, batch_size=8))
    whole = plan_training(settings, Card(name="large", memory=GIB))
    assert whole.fit.fits
    assert whole.fit.changes == ()
    assert whole.fit.sentence().endswith("of the 1.0 GiB of large")
    need = whole.memory.total
    half = plan_training(settings, Card(name="half", memory=need - 1)).fit
    assert [text.partition(" (")[0] for text in half.changes] == ["student.dtype bfloat16"]
    settings = Settings.model_validate(lab_settings(lab, batch_size=8, gradient_checkpointing="non_reentrant"))
    settings = settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": "bfloat16"})})
    small = plan_training(settings, Card(name="small", memory=plan_training(settings).memory.total * 6 // 10)).fit
    assert small.changes[0].startswith("training.batch_size 4 with training.accumulation_steps 4 (")
    assert not small.fits
    none = plan_training(settings, Card(name="none", memory=1)).fit
    assert none.changes[-1] == "then student.quantisation 4bit, or training.sharding fsdp2 on several cards"
    assert "training.batch_size 1 with training.accumulation_steps 16" in none.sentence()


def test_the_advice_is_what_the_changed_run_plans(lab):
    """Of every change that the sentence names."""
    settings = Settings.model_validate(lab_settings(lab, batch_size=8))
    advised = plan_training(settings, Card(name="none", memory=1)).fit.changes
    values = settings.model_dump()
    for text in advised[:-1]:
        words = text.partition(" (")[0].replace(" with ", " ").split()
        for key, value in zip(words[::2], words[1::2], strict=True):
            section, _, name = key.partition(".")
            values[section][name] = int(value) if value.isdecimal() else value
        changed = plan_training(Settings.model_validate(values), Card(name="none", memory=1))
        assert text.endswith(f"({changed.memory.total / GIB:.1f} GiB)")


LAYERS = None if os.environ.get("MEDALIGN_PRETENDED_GPU") == "all" else 1


def test_a_dry_run_at_7b_by_the_real_loading_path(lab, tmp_path):
    """The published width, weights as holes in a sparse file; the sizes of LoRA and W are worked out by hand."""
    student = write_sparse(tmp_path / "llava-med", "llava-med", layers=LAYERS)
    layers = LAYERS or 32
    values = {
        "student": {"path": str(student), "dtype": "bfloat16"},
        "data": {"manifest": str(lab / "manifest.parquet")},
        "alignment": {"layer": layers - 1, "alpha": 0, "beta": 0},
        "lora": {"rank": 64, "alpha": 16},
        "training": {"batch_size": 8, "max_length": 1024, "device": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    command = ["student", "train", str(tmp_path / "config.yaml"), "--dry-run", "--card", "24GB", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.output)
    lora = 64 * (2 * 8192 + 2 * 5120 + 3 * 18432)  # q and o, k and v, gate, up and down: in + out
    assert plan["trainable_language_model"] == layers * lora
    assert plan["trainable_rotation"] == 4096**2
    base = (student / "model.safetensors").stat().st_size / GIB
    trained = 4 * (layers * lora + 4096**2) / GIB
    assert plan["memory_gib"]["weights"] == pytest.approx(base + trained, rel=0.02)
    assert "GiB of the 24.0 GiB of a card of 24 GiB" in plan["gpu_memory"]


def test_a_card_is_for_the_plan(tmp_path):
    done = CliRunner().invoke(app, ["student", "train", "c.yaml", "--out", str(tmp_path / "o"), "--card", "24GB"])
    assert done.exit_code == 2
    assert "--card 24GB is for the plan: add --dry-run" in " ".join(done.output.split())
