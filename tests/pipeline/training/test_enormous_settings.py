"""Numbers far beyond what a setting can use are refused when a file is read, not where they overflow later."""

from pathlib import Path

import pytest
import yaml
from medalign.errors import SettingsError
from medalign.pipeline.evaluation.comparison.spec import ComparisonSpec, load_comparison
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import load_settings
from pydantic import BaseModel


def numbers(model: type[BaseModel], outer: str = "") -> list[str]:
    """Every setting that takes a number, by its dotted name."""
    names = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += numbers(field.annotation, f"{outer}{name}.")
        elif "int" in str(field.annotation) or (
            "float" in str(field.annotation) and "Literal" not in str(field.annotation)
        ):
            names.append(outer + name)
    return names


NUMBERS = numbers(Settings)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"student": {"path": "base"}, "data": {"manifest": "m.parquet", "store": "s"}}))
    return path


def test_the_list_has_every_number():
    assert {
        "training.num_train_epochs",
        "training.per_device_train_batch_size",
        "training.seed",
        "lora.r",
        "alignment.alpha",
    } <= set(NUMBERS)
    assert len(NUMBERS) > 20


@pytest.mark.parametrize("value", ["10000000000000000000000", "1.0e+308", "1e308", "2000000000.5"])
@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "alignment.layer"])
def test_enormous_numbers_of_a_run_are_refused_by_name(run, name, value):
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")) as caught:
        load_settings(run, [f"{name}={value}"])
    assert "1 problem" in str(caught.value)


def test_large_numbers_that_are_of_use_are_taken(run):
    chosen = [
        "training.seed=4294967295",
        "training.max_steps=1000000000",
        "training.per_device_train_batch_size=100000",
        "lora.r=4096",
    ]
    assert load_settings(run, chosen).training.seed == 2**32 - 1


def test_layers_beyond_any_model_are_refused(run):
    with pytest.raises(SettingsError, match=r"alignment\.layer"):
        load_settings(run, ["alignment.layer=[3, 10000000000000000000000]"])


@pytest.mark.parametrize("name", ["batch_size", "max_new_tokens", "resamples", "rounds", "statistics_seed", "seeds"])
def test_enormous_numbers_of_a_comparison_are_refused_by_name(tmp_path, name):
    values = {
        "students": [{"name": "a", "path": "base"}],
        "decodings": ["greedy"],
        "data": [{"name": "d", "manifest": "m.parquet"}],
        "baseline": {"adapter": "base", "decoding": "greedy"},
    }
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(values))
    assert isinstance(load_comparison(path), ComparisonSpec)
    path.write_text(yaml.safe_dump(values | {name: [10**22] if name == "seeds" else 10**22}))
    with pytest.raises(SettingsError, match=name):
        load_comparison(path)
    values["data"][0]["limit"] = 10**22
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=r"data\.0\.limit"):
        load_comparison(path)
