"""`auto`, the default precision: what it becomes in training, and that files have what it became."""

import inspect
import json
import shutil
from pathlib import Path

import medalign
import pytest
import torch
import yaml
from command_tree import COMMANDS
from labs import lab_settings, make_lab
from medalign.errors import InputError, SettingsError
from medalign.pipeline.evaluation.batches.batch_work import StudentRecipe
from medalign.pipeline.evaluation.comparison.spec import StudentSpec
from medalign.pipeline.evaluation.requests import SplitRequest
from medalign.pipeline.training import auto_dtype
from medalign.pipeline.training.auto_dtype import with_dtype
from medalign.pipeline.training.gpu_memory import parse_card
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.resume import check_same_run
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import load_settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import AdapterRecord
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.families.bases import stored_dtype
from medalign.student.loading.student_loading import inference_dtype, load_student
from safetensors.torch import load_file, save_file
from students import adapter_record


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A lab whose base is stored in bfloat16."""
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    store_in(folder / "student", torch.bfloat16)
    return folder


def store_in(student: Path, dtype: torch.dtype) -> None:
    """Round a base's weights, and say so in its config.json."""
    weights = {name: value.to(dtype) for name, value in load_file(student / "model.safetensors").items()}
    save_file(weights, student / "model.safetensors", {"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    config = json.loads((student / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part.pop("torch_dtype", None)
        part["dtype"] = name
    (student / "config.json").write_text(json.dumps(config))


@pytest.fixture
def settings(lab) -> Settings:
    return Settings.model_validate(lab_settings(lab))


@pytest.mark.parametrize(("device", "expected"), [("cpu", "float32"), ("cuda", "bfloat16"), ("mps", "bfloat16")])
def test_training_takes_float32_on_a_cpu_and_the_checkpoints_precision_elsewhere(
    settings, monkeypatch, device, expected
):
    monkeypatch.setattr(auto_dtype, "pick_device", lambda _: device)
    assert settings.student.dtype == "auto"
    assert with_dtype(settings, for_card=False).student.dtype == expected
    for given in ("float32", "float16"):
        chosen = settings.student.model_copy(update={"dtype": given})
        assert with_dtype(settings.model_copy(update={"student": chosen}), for_card=False).student.dtype == given


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_each_stored_precision_is_taken_on_a_gpu(settings, monkeypatch, tmp_path, dtype):
    student = shutil.copytree(settings.student.path, tmp_path / "student")
    store_in(student, dtype)
    monkeypatch.setattr(auto_dtype, "pick_device", lambda _: "cuda")
    moved = settings.student.model_copy(update={"path": student})
    changed = with_dtype(settings.model_copy(update={"student": moved}), for_card=False)
    assert changed.student.dtype == str(dtype).removeprefix("torch.")


def test_a_plan_for_a_card_is_that_of_the_machine_that_has_it(settings):
    """The card is a GPU, though this machine has none: its run would take bfloat16."""
    here, there = plan_training(settings), plan_training(settings, parse_card("24GB"))
    assert (here.summary()["dtype"], there.summary()["dtype"]) == ("float32", "bfloat16")
    assert there.student.dtype == "bfloat16"
    assert there.memory.weights < here.memory.weights


class Ended(Exception):
    """The student was called."""


def test_a_run_writes_and_resumes_with_what_auto_became(settings, monkeypatch, tmp_path):
    precisions = []

    def forward(self, **kwargs):
        precisions.append(kwargs["autocast"])
        raise Ended

    monkeypatch.setattr(AlignedStudent, "forward", forward)
    out = tmp_path / "run"
    with pytest.raises(Ended):
        run_training(settings, out, Silent())
    assert precisions == [None], "float32: nothing is cast"
    saved = yaml.safe_load((out / "config.yaml").read_text())
    assert saved["student"]["dtype"] == "float32"
    monkeypatch.setattr(auto_dtype, "pick_device", lambda _: "cuda")  # the run goes on elsewhere
    assert check_same_run(settings, out / "config.yaml") == load_settings(out / "config.yaml")
    half = settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": "bfloat16"})})
    with pytest.raises(InputError, match=r"student\.dtype: float32 before, bfloat16 now"):
        check_same_run(half, out / "config.yaml")


def test_for_inference_auto_is_the_adapters_else_the_checkpoints(lab, settings):
    base = settings.student.path
    assert stored_dtype(base) == "bfloat16"
    student = load_student(base)
    assert student.dtype == load_student(base, dtype="auto").dtype == "bfloat16"
    trained: AdapterRecord = adapter_record(student)
    for recorded, expected in (({}, "bfloat16"), ({"student": {"dtype": "float16"}}, "float16")):
        record = AdapterRecord(**{**vars(trained), "settings": recorded})
        assert inference_dtype(base, record, "auto") == expected
        assert inference_dtype(base, record, "float32") == "float32"


def test_auto_is_the_default_wherever_a_student_is_loaded():
    for function in (load_student, medalign.load_student, medalign.evaluate):
        assert inspect.signature(function).parameters["dtype"].default == "auto"
    for record in (SplitRequest, StudentRecipe):
        assert record.__dataclass_fields__["dtype"].default == "auto"
    assert StudentSpec.model_fields["dtype"].default == "auto"
    group = COMMANDS.commands["student"]
    for name in ("evaluate", "generate", "ground"):
        (option,) = [item for item in group.commands[name].params if item.name == "dtype"]
        assert option.default == "auto"
        assert option.show_default


def test_in_python_none_is_no_precision(lab, tmp_path):
    """It was the default of earlier versions, and would be taken for the stored precision whatever the adapter's is."""
    told = "dtype: 'None' is not one of auto, float32, bfloat16, float16"
    with pytest.raises(SettingsError, match=told):
        medalign.load_student(lab / "student", dtype=None)
    with pytest.raises(SettingsError, match=told):
        medalign.evaluate(lab / "student", lab / "manifest.parquet", tmp_path / "out", dtype=None)
