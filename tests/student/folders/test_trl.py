"""TRL's trainers take folders that medalign writes, with their chat templates; runs where TRL is installed."""

import math
from dataclasses import replace

import pytest
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.student.folders.convert import convert_original
from medalign.student.folders.export import export_adapter
from originals import write_original
from PIL import Image
from students import adapter_record, trainable, write_tiny_student
from transformers import AutoProcessor, LlavaForConditionalGeneration

trl = pytest.importorskip("trl", reason="TRL is not installed")
datasets = pytest.importorskip("datasets", reason="datasets is not installed")
SHARED = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "bf16": False}


@pytest.fixture(params=["export", "convert"])
def folder(request, tmp_path):
    if request.param == "convert":
        convert_original(
            write_original(tmp_path / "base", "llava").folder, tmp_path / "out", dtype=None, progress=Silent()
        )
        return tmp_path / "out"
    write_tiny_student(tmp_path / "base")
    student = trainable(tmp_path / "base", rotation="none")
    save_adapter(student.model, replace(adapter_record(student), rotation="none"), tmp_path / "adapter")
    export_adapter(tmp_path / "adapter", tmp_path / "out", base=None, dtype=None, evaluations=(), progress=Silent())
    return tmp_path / "out"


def loss_of(trainer):
    trainer.train()
    (loss,) = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return float(loss)


def opened(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.mark.filterwarnings("ignore")
def test_sft_takes_a_folder(folder, tmp_path):
    model, processor = opened(folder)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a mass?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}
    row = {"messages": [question, answer], "images": [Image.new("RGB", (24, 24))]}
    arguments = trl.SFTConfig(output_dir=str(tmp_path / "sft"), max_length=None, logging_steps=1, **SHARED)
    data = datasets.Dataset.from_list([row, row])
    trainer = trl.SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=processor)
    assert 0 < loss_of(trainer) < 20


@pytest.mark.filterwarnings("ignore")
def test_grpo_takes_a_folder(folder, tmp_path):
    model, processor = opened(folder)
    row = {"prompt": [{"role": "user", "content": "Is there a mass?"}], "image": Image.new("RGB", (24, 24))}
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path / "grpo"), num_generations=2, max_completion_length=4, logging_steps=1, **SHARED
    )
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(number) for number in range(len(completions))],
        args=arguments,
        train_dataset=datasets.Dataset.from_list([row, row]),
        processing_class=processor,
    )
    assert math.isfinite(loss_of(trainer))
