"""Configuration: every problem at once, and every shipped file opens."""

from pathlib import Path

import pytest
import yaml
from medalign.errors import SettingsError
from medalign.pipeline.settings import PRESETS, Settings, load_settings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


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


def test_there_are_shipped_configurations():
    assert len(CONFIGS) >= 3


def test_unknown_key_and_wrong_type_are_told_together(good):
    with pytest.raises(SettingsError) as caught:
        load_settings(good, ["alignment.betta=0.06", "training.batch_size=many", "lora.rank=0"])
    message = str(caught.value)
    assert "3 problems" in message
    assert "alignment.betta: unknown key (did you mean 'beta'?)" in message
    assert "training.batch_size" in message
    assert "'many'" in message
    assert "lora.rank" in message


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


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(SettingsError, match="must hold sections"):
        load_settings(path)
    path.write_text("a: [")
    with pytest.raises(SettingsError, match="not readable YAML"):
        load_settings(path)
    with pytest.raises(SettingsError, match="no configuration file"):
        load_settings(tmp_path / "absent.yaml")


def test_resolved_settings_read_back_the_same(good, tmp_path):
    settings = load_settings(good)
    copy = tmp_path / "copy.yaml"
    copy.write_text(settings.to_yaml())
    assert load_settings(copy) == settings
    assert isinstance(settings, Settings)
