"""QLoRA: the quantization config, and the error if bitsandbytes is missing."""

import importlib.util

import pytest
import torch
from medalign.errors import SettingsError
from medalign.student.families.quantized import quantization_config
from medalign.student.loading.student_loading import open_student


@pytest.fixture
def installed(monkeypatch):
    """Make bitsandbytes look installed or missing to the check."""

    def pretend(present: bool) -> None:
        real = importlib.util.find_spec
        spec = real("json") if present else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "bitsandbytes" else real(name))

    return pretend


def test_quantization_without_bitsandbytes_is_refused(installed, student_folder):
    installed(False)
    with pytest.raises(SettingsError, match=r"student\.quantization is '4bit', but the package 'bitsandbytes'"):
        open_student(student_folder, layers=[2], rotation="full", quantization="4bit")


def test_four_bits_use_the_settings_of_qlora(installed):
    installed(True)
    config = quantization_config("4bit", torch.bfloat16)
    assert config.load_in_4bit
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert "vision_tower" in config.llm_int8_skip_modules


def test_eight_bits_do_not_quantize_tower_projector_and_head(installed):
    installed(True)
    config = quantization_config("8bit", torch.float16)
    assert config.load_in_8bit
    assert not config.load_in_4bit
    assert config.llm_int8_skip_modules == ["vision_tower", "multi_modal_projector", "lm_head"]
