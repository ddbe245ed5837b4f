"""Of several processes each has its own GPU from the first byte that is loaded; devices are pretended."""

import importlib.util
import types

import pytest
import torch
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.devices import pick_device
from medalign.pipeline.training import plan
from medalign.pipeline.training.settings import Settings
from medalign.student.families.bases import load_llava
from medalign.student.processes import Processes
from transformers import LlavaForConditionalGeneration


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, object]]:
    """What is done with the four GPUs of a machine that has none, in order."""
    calls: list[tuple[str, object]] = []
    real = torch.empty

    def empty(*size, **options):
        if str(options.get("device", "")).startswith("cuda"):
            calls.append(("empty", options.pop("device")))
        return real(*size, **options)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", device)))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Quadro")
    return calls


def several(monkeypatch, **environment: int) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("environment", "gpu"),
    [
        ({"WORLD_SIZE": 8, "RANK": 6, "LOCAL_RANK": 2}, 2),  # the second machine of two
        ({"WORLD_SIZE": 8, "RANK": 6, "LOCAL_RANK": 6}, 2),  # two processes on each GPU
        ({"WORLD_SIZE": 4, "RANK": 3}, 3),
    ],
)
@pytest.mark.parametrize("wanted", ["cuda", None])
def test_the_gpu_of_a_process_is_current_before_anything_is_put_on_one(calls, monkeypatch, environment, gpu, wanted):
    several(monkeypatch, **environment)
    assert pick_device(wanted) == "cuda"
    assert calls[0] == ("set_device", gpu)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}])
def test_one_process_leaves_the_current_gpu_alone(calls, monkeypatch, environment):
    several(monkeypatch, **environment)
    assert pick_device(None) == "cuda"
    assert calls == []


def test_the_cpu_stays_the_cpu(calls, monkeypatch):
    several(monkeypatch, WORLD_SIZE=2, RANK=1, LOCAL_RANK=1)
    assert pick_device("cpu") == "cpu"
    assert calls == []


class Loaded(Exception):
    """The student would be loaded now."""


def test_training_takes_its_gpu_before_the_student_is_loaded(calls, monkeypatch, tmp_path):
    several(monkeypatch, WORLD_SIZE=4, RANK=3, LOCAL_RANK=3)

    def load(*args, **options):
        calls.append(("load", options["quantization"]))
        raise Loaded

    monkeypatch.setattr(plan, "open_to_train", load)
    settings = lab_settings(make_lab(tmp_path / "lab"), device="cuda")
    settings["student"]["quantization"] = "4bit"
    with pytest.raises(Loaded):
        plan.plan_training(Settings.model_validate(settings))
    assert calls[0] == ("set_device", 3)
    assert calls[-1] == ("load", "4bit")


@pytest.mark.parametrize(("has_gpu", "place"), [(True, 3), (False, "cpu")])
@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_quantized_model_is_loaded_onto_the_current_gpu(monkeypatch, student_folder, kind, has_gpu, place):
    given = {}

    def from_pretrained(folder, **options):
        given.update(options)
        raise ValueError("loaded")

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types if name == "bitsandbytes" else find(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", from_pretrained)
    with pytest.raises(InputError, match="loaded"):
        load_llava(student_folder, "bfloat16", kind)
    assert given["device_map"] == {"": place}


def test_a_gpu_without_bfloat16_is_refused(calls, monkeypatch, tmp_path):
    several(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    settings = lab_settings(make_lab(tmp_path / "lab"), device="cuda")
    settings["student"]["dtype"] = "bfloat16"
    with pytest.raises(SettingsError, match=r"bfloat16, which this GPU \(Quadro\) does not support: set student\.dt"):
        plan.plan_training(Settings.model_validate(settings))


def test_processes_are_those_of_the_environment(monkeypatch):
    several(monkeypatch, WORLD_SIZE=8, RANK=5, LOCAL_RANK=1)
    assert Processes.of_environment() == Processes(number=8, rank=5, local_rank=1)
    several(monkeypatch)
    assert Processes.of_environment() == Processes(number=1, rank=0, local_rank=0)
