"""QLoRA: the configuration that is asked for, and the refusal where bitsandbytes is missing."""

import importlib.util

import pytest
import torch
from medalign.errors import SettingsError
from medalign.student.families.quantized import quantisation_config
from medalign.student.loading.student_loading import open_student


@pytest.fixture
def installed(monkeypatch):
    """Makes bitsandbytes look present or absent to the check."""

    def pretend(present: bool) -> None:
        real = importlib.util.find_spec
        spec = real("json") if present else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "bitsandbytes" else real(name))

    return pretend


def test_without_bitsandbytes_it_is_refused(installed, student_folder):
    installed(False)
    with pytest.raises(SettingsError, match=r"student\.quantization is '4bit', but the package 'bitsandbytes'"):
        open_student(student_folder, layers=[2], rotation="full", quantisation="4bit")


def test_four_bits_are_those_of_qlora(installed):
    installed(True)
    config = quantisation_config("4bit", torch.bfloat16)
    assert config.load_in_4bit
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert "vision_tower" in config.llm_int8_skip_modules


def test_eight_bits_leave_tower_projector_and_head_alone(installed):
    installed(True)
    config = quantisation_config("8bit", torch.float16)
    assert config.load_in_8bit
    assert not config.load_in_4bit
    assert config.llm_int8_skip_modules == ["vision_tower", "multi_modal_projector", "lm_head"]
