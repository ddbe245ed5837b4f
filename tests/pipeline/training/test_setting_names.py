"""Settings have Hugging Face's names: old names are errors in a configuration, and are read in stored files."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from labs import lab_settings
from medalign.errors import InputError, SettingsError
from medalign.pipeline.training.resume import check_same_run, load_run_settings
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import load_settings, settings_of
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.adapters.setting_names import with_current_names
from peft import LoraConfig
from transformers import TrainingArguments

RENAMED = {
    "training.epochs": ("training.num_train_epochs", 5.0),
    "training.batch_size": ("training.per_device_train_batch_size", 6),
    "training.accumulation_steps": ("training.gradient_accumulation_steps", 7),
    "training.evaluation_steps": ("training.eval_steps", 8),
    "training.workers": ("training.dataloader_num_workers", 3),
    "lora.rank": ("lora.r", 9),
    "lora.alpha": ("lora.lora_alpha", 10),
    "lora.dropout": ("lora.lora_dropout", 0.25),
    "student.quantisation": ("student.quantization", "8bit"),
}
"""Each old name with the current one and a value that is not the default."""

KNOWN_ELSEWHERE = {
    "training": {field.name for field in fields(TrainingArguments)} | {"warmup_ratio", "group_by_length"},
    "lora": {field.name for field in fields(LoraConfig)},
}
"""What transformers and peft call settings; two of them until transformers 4."""

OWN = {"max_length", "sharding", "patience", "device", "b_rate"}
"""Settings that neither has, or has in another form."""


@pytest.fixture
def lab(tmp_path) -> dict[str, dict[str, object]]:
    return lab_settings(tmp_path)


def value_of(settings: Settings, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def earlier(values: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Settings under the names that earlier versions wrote."""
    old = {new: name for name, (new, _) in RENAMED.items()}
    named = {s: {old.get(f"{s}.{key}", f"{s}.{key}"): value for key, value in v.items()} for s, v in values.items()}
    return {section: {name.split(".")[1]: value for name, value in keys.items()} for section, keys in named.items()}


def test_names_are_those_of_transformers_and_peft():
    for section, known in KNOWN_ELSEWHERE.items():
        model = Settings.model_fields[section].annotation
        assert set(model.model_fields) - OWN <= known, section


@pytest.mark.parametrize("name", RENAMED)
def test_an_old_name_in_a_configuration_is_an_error_with_the_current_one(lab, tmp_path, name):
    section, key = name.split(".")
    current, value = RENAMED[name]
    told = rf"  {name}: unknown key \(did you mean '{current}'\?\)"
    with pytest.raises(SettingsError, match=told) as caught:
        settings_of(lab, [f"{name}={value}"])
    assert caught.value.exit_code == 2
    lab[section][key] = value
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(lab))
    with pytest.raises(SettingsError, match=told):
        load_settings(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("training.epoch", "'training.num_train_epochs'"),
        ("training.num_epochs", "'num_train_epochs'"),
        ("training.batchsize", "'training.per_device_train_batch_size'"),
        ("training.num_workers", "'training.dataloader_num_workers'"),
        ("lora.ranks", "'lora.r'"),
        ("lora.lora_alfa", "'lora_alpha'"),
        ("training.eval_step", "'eval_steps'"),
    ],
)
def test_a_misspelled_name_is_recognized_in_both_spellings(lab, name, meant):
    with pytest.raises(SettingsError, match=rf"{name}: unknown key \(did you mean {meant}\?\)"):
        settings_of(lab, [f"{name}=1"])


def stored(lab: dict[str, dict[str, object]], out: Path) -> Settings:
    """A run of an earlier version with every renamed setting off its default, and its settings as they are now."""
    for new, value in RENAMED.values():
        section, key = new.split(".")
        lab[section][key] = value
    settings = settings_of(lab)
    out.mkdir()
    values = earlier(settings.model_dump(mode="json"))
    (out / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert all(name.split(".")[1] in values[name.split(".")[0]] for name in RENAMED)
    return settings


def test_a_run_of_an_earlier_version_resumes_with_its_own_settings(lab, tmp_path):
    out = tmp_path / "run"
    settings = stored(lab, out)
    for config in (None, out / "config.yaml"):
        assert load_run_settings(config, out, resume=True) == settings
    for name, (new, value) in RENAMED.items():
        assert value_of(settings, new) == value, name
    changed = load_run_settings(None, out, ["training.dataloader_num_workers=0"], resume=True)
    assert changed.training.dataloader_num_workers == 0
    with pytest.raises(SettingsError, match=r"training.workers: unknown key \(did you mean 'training.dataloader_num"):
        load_run_settings(None, out, ["training.workers=0"], resume=True)
    with pytest.raises(SettingsError, match=r"9 problems"):
        load_run_settings(out / "config.yaml", None, resume=False)


def test_a_run_of_an_earlier_version_is_compared_under_the_current_names(lab, tmp_path):
    out = tmp_path / "run"
    settings = stored(lab, out)
    check_same_run(settings, out / "config.yaml")
    training = settings.training.model_copy(update={"num_train_epochs": 1.0, "dataloader_num_workers": 1})
    with pytest.raises(InputError, match=r"training\.num_train_epochs: 5\.0 before, 1\.0 now") as caught:
        check_same_run(settings.model_copy(update={"training": training}), out / "config.yaml")
    assert "A run of another length" in str(caught.value)
    assert "dataloader_num_workers" not in str(caught.value)


def test_an_adapter_of_an_earlier_version_is_read_under_the_current_names(lab, tmp_path):
    settings = stored(lab, tmp_path / "run").model_dump(mode="json")
    record = {
        "base": "../student", "base_fingerprint": "0" * 64, "layers": [2], "rotation": "full", "template": "plain",
        "attention_normalisation": "sum", "store": None, "settings": earlier(settings), "format": "medalign-adapter",
        "version": 1,
    }  # fmt: skip
    (tmp_path / "medalign.json").write_text(json.dumps(record))
    assert read_adapter_record(tmp_path).settings == settings


def test_stored_settings_that_are_current_or_no_settings_are_left_as_they_are(lab):
    current = settings_of(lab).model_dump(mode="json")
    assert with_current_names(current) == current
    odd = {"lora": None, "training": ["epochs"], "alignment": {"alpha": 1.0}, "epochs": 3, "student": {"dtype": "x"}}
    assert with_current_names(odd) == odd
    both = {"lora": {"rank": 4, "r": 8}}
    assert with_current_names(both) == both, "no version wrote both, so nothing is chosen"
