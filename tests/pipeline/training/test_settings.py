"""Configuration: every problem at once, and every shipped file opens."""

from pathlib import Path

import pytest
import yaml
from medalign.errors import SettingsError
from medalign.pipeline.training.settings import PRESETS, Settings
from medalign.pipeline.training.settings_loading import load_settings

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    values = {
        "student": {"path": "base"},
        "data": {"manifest": "m.parquet", "store": "s.zarr"},
        "training": {"learning_rate": 1e-3},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_opens(path):
    settings = load_settings(path)
    assert settings.data.store is not None


PAPER = {
    "vqa-rad-llava-med": (9, 32, 20, 0.06),
    "iu-xray-llava-med": (12, 64, 20, 0.03),
    "slake-huatuo": (6, 32, 16, 0.03),
    "iu-xray-huatuo": (12, 64, 20, 0.03),
}
"""Epochs, rank, layer and beta of the paper's runs."""


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_runs_have_the_papers_numbers(name):
    settings = load_settings(CONFIGS[0].with_name(f"{name}.yaml"))
    training = settings.training
    assert (training.num_train_epochs, settings.lora.r, settings.alignment.layer, settings.alignment.beta) == PAPER[
        name
    ]
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 32
    assert (training.learning_rate, training.warmup_ratio, training.weight_decay) == (2e-4, 0.03, 0.0)
    assert (settings.lora.lora_alpha, settings.lora.lora_dropout, training.max_length) == (16, 0.05, 1024)
    assert settings.student.dtype == "bfloat16"
    assert settings.alignment.preset == "paper"


def test_each_part_has_its_own_rate(good):
    """Rates that are null follow training.learning_rate."""
    settings = load_settings(good)
    assert settings.projector_learning_rate == pytest.approx(1e-4)
    assert settings.vision_tower_learning_rate == pytest.approx(1e-3)
    assert load_settings(good, ["trainable.vision_tower=full"]).vision_tower_learning_rate == pytest.approx(1e-5)
    chosen = load_settings(good, ["trainable.vision_tower_learning_rate=3e-6", "trainable.projector_learning_rate=0.5"])
    assert (chosen.vision_tower_learning_rate, chosen.projector_learning_rate) == (3e-6, 0.5)


def test_patience_needs_a_validation_split(good):
    with pytest.raises(SettingsError, match=r"training\.patience is 2, but data\.validation_split is not set"):
        load_settings(good, ["training.patience=2"])


def test_unknown_key_and_wrong_type_are_told_together(good):
    with pytest.raises(SettingsError) as caught:
        load_settings(good, ["alignment.betta=0.06", "training.per_device_train_batch_size=many", "lora.r=0"])
    message = str(caught.value)
    assert "3 problems" in message
    assert "alignment.betta: unknown key (did you mean 'beta'?)" in message
    assert "training.per_device_train_batch_size" in message
    assert "'many'" in message
    assert "lora.r" in message


def test_overrides_reach_the_settings(good):
    settings = load_settings(good, ["alignment.beta=0.06", "alignment.preset=paper", "training.max_steps=5"])
    assert settings.alignment.beta == 0.06
    assert settings.training.max_steps == 5
    assert settings.rotation_learning_rate == 1e-3


def test_the_default_preset_trains_the_rotation_more_slowly(good):
    assert load_settings(good).rotation_learning_rate == pytest.approx(1e-3 * PRESETS["default"].rotation_rate)
    assert load_settings(good, ["trainable.rotation_learning_rate=0.5"]).rotation_learning_rate == 0.5


def test_losses_without_a_store_are_refused(good):
    with pytest.raises(SettingsError, match=r"data.store is not set"):
        load_settings(good, ["data.store=null"])
    assert load_settings(good, ["data.store=null", "alignment.alpha=0", "alignment.beta=0"]).data.store is None


@pytest.mark.parametrize("override", ["alignment.beta", "=3", "data.manifest.x=3"])
def test_a_malformed_override_is_explained(good, override):
    with pytest.raises(SettingsError, match="--set"):
        load_settings(good, [override])


@pytest.mark.parametrize(
    "value",
    ["[3", ": :", "*a", "!!x", "\x07", "2001-13-45", "[" * 3000, "1" * 5000, "\udcff"],
    ids=lambda v: repr(v)[:12],
)
def test_an_override_that_is_no_yaml_is_named(good, value):
    with pytest.raises(SettingsError, match=r"^--set '?alignment.layer.*: its value is n"):
        load_settings(good, [f"alignment.layer={value}"])


@pytest.mark.parametrize("text", ["[" * 3000, "a: " + "1" * 5000, "a: 2001-13-45"], ids=lambda text: text[:12])
def test_yaml_that_python_cannot_hold_is_refused_in_words(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"run\.yaml cannot be read as YAML: "):
        load_settings(tmp_path / "run.yaml")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(SettingsError, match="must contain sections"):
        load_settings(path)
    path.write_text("a: [")
    with pytest.raises(SettingsError, match="cannot be read as YAML"):
        load_settings(path)
    with pytest.raises(SettingsError, match=r"the configuration file .* does not exist"):
        load_settings(tmp_path / "absent.yaml")


def test_resolved_settings_read_back_the_same(good, tmp_path):
    settings = load_settings(good)
    copy = tmp_path / "copy.yaml"
    copy.write_text(settings.to_yaml())
    assert load_settings(copy) == settings
    assert isinstance(settings, Settings)


def test_a_key_that_is_set_twice_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("alignment:\n  beta: 0.1\n  alpha: 1\n  beta: 0.2\n")
    with pytest.raises(SettingsError, match=r"cannot be read as YAML: beta is set twice(.|\n)*line 4"):
        load_settings(path)


NO_RUN = {
    "alignment.layer=[3, 3]": r"alignment\.layer: names a layer twice",
    "alignment.layer=[2, 3, 2]": r"alignment\.layer: names a layer twice",
    "alignment.layer=[]": r"alignment\.layer: names no layer",
    "alignment.layer=-1": r"alignment\.layer: needs a whole number from 0, or a list .*, found -1$",
    "alignment.layer=[2, -1]": r"alignment\.layer: needs a whole number from 0.*found \[2, -1\]$",
    "alignment.layer=true": r"alignment\.layer: needs a (value|whole number)",
    "alignment.layer=2.5": r"alignment\.layer: needs a whole number",
    "alignment.alpha=-0.5": r"alignment\.alpha: .*greater than or equal to 0, found -0\.5",
    "alignment.alpha=.inf": r"alignment\.alpha: .*finite number, found inf",
    "alignment.beta=.inf": r"alignment\.beta: .*finite number",
    "alignment.beta=.nan": r"alignment\.beta: ",
    "training.learning_rate=0": r"training\.learning_rate: .*greater than 0, found 0",
    "training.learning_rate=.inf": r"training\.learning_rate: .*finite number",
    "training.learning_rate=.nan": r"training\.learning_rate: ",
    "trainable.rotation_learning_rate=.inf": r"trainable\.rotation_learning_rate: .*finite number",
    "trainable.projector_learning_rate=0": r"trainable\.projector_learning_rate: .*greater than 0",
    "lora.b_rate=.inf": r"lora\.b_rate: .*finite number",
    "training.weight_decay=.inf": r"training\.weight_decay: .*finite number",
    "training.max_grad_norm=0": r"training\.max_grad_norm: .*greater than 0",
    "training.max_grad_norm=.inf": r"training\.max_grad_norm: .*finite number",
    "training.num_train_epochs=0": r"training\.num_train_epochs: .*greater than 0",
    "training.num_train_epochs=.inf": r"training\.num_train_epochs: .*finite number",
    "training.max_steps=0": r"training\.max_steps: .*greater than or equal to 1",
    "training.max_steps=yes": r"training\.max_steps: needs a value, not a boolean",
    "training.per_device_train_batch_size=0": r"training\.per_device_train_batch_size: .*greater than or equal to 1",
    "training.per_device_train_batch_size=true": r"training\.per_device_train_batch_size: needs a value, not a boolean",
    "training.gradient_accumulation_steps=0": r"training\.gradient_accumulation_steps: .*greater than or equal to 1",
    "training.logging_steps=0": r"training\.logging_steps: .*greater than or equal to 1",
    "training.save_steps=0": r"training\.save_steps: .*greater than or equal to 1",
    "training.eval_steps=0": r"training\.eval_steps: .*greater than or equal to 1",
    "training.warmup_ratio=1.5": r"training\.warmup_ratio: .*less than 1",
    "training.warmup_ratio=-0.1": r"training\.warmup_ratio: .*greater than or equal to 0",
    "training.report_to=[wandb, wandb]": r"training\.report_to: names a reporter twice",
    "training.seed=-1": r"training\.seed: .*greater than or equal to 0",
    "training.seed=4294967296": r"training\.seed: .*less than 4294967296",
    "data.validation_split=train": r"validation_split and data\.train_split are both 'train'",
}
"""Settings with which no run makes sense, each with what is said of it."""


@pytest.mark.parametrize("override", NO_RUN)
def test_settings_without_a_meaning_are_refused(good, override):
    with pytest.raises(SettingsError, match=NO_RUN[override]) as caught:
        load_settings(good, [override])
    assert "constrained" not in str(caught.value)


def test_conflicts_are_told_together(good):
    with pytest.raises(SettingsError) as caught:
        load_settings(good, ["data.store=null", "training.patience=2"])
    assert "data.store is not set" in str(caught.value)
    assert "training.patience is 2" in str(caught.value)


def test_clipping_is_a_setting(good):
    assert load_settings(good).training.max_grad_norm == 1.0
    assert load_settings(good, ["training.max_grad_norm=null"]).training.max_grad_norm is None
    assert load_settings(good, ["training.max_grad_norm=0.3"]).training.max_grad_norm == 0.3
