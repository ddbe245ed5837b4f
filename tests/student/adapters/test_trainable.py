"""Trained parameters: parts, names, groups, learning rates, saving and loading."""

from dataclasses import replace

import pytest
import torch
from medalign.errors import InputError, SettingsError
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.student.adapters.parameter_names import part_of
from medalign.student.adapters.trainable import (
    LearningRates,
    TrainableParts,
    count_trainable,
    make_trainable,
    parameter_groups,
    trainable_parameters,
)
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.adapter_loading import attach_adapter, load_trained
from medalign.student.loading.student_loading import load_student, open_student
from students import LAYER, adapter_record, mixed_samples

PARTS = TrainableParts(rank=2, alpha=4, dropout=0.0)
RATES = LearningRates(language_model=1.0, projector=2.0, vision_tower=3.0, rotation=4.0, lora_b_ratio=16.0)
CHOICES = {
    "lora": {},
    "projector": {"projector": "full"},
    "tower lora": {"vision_tower": "lora"},
    "everything": {"projector": "full", "vision_tower": "full"},
    "no lora": {"language_model": "none", "projector": "full"},
}


def student_with(folder, *, rotation="full", dtype="float32", **choice):
    torch.manual_seed(1)
    student = open_student(folder, layers=[LAYER], rotation=rotation, template="plain", dtype=dtype)
    make_trainable(student.model, replace(PARTS, **choice), base=student.base)
    return student


def batch_of(student, tmp_path):
    encoded = [encode_sample(student, item, with_answer=True) for item in mixed_samples(tmp_path)]
    return Collator(pad_token_id=0)(encoded)


def perturb(student):
    """Change every trained value a little from its initial value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable_parameters(student.model).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_exactly_the_trained_parameters_have_a_gradient(student_folder, tmp_path, choice):
    student = student_with(student_folder, **choice)
    perturb(student)  # LoRA's B starts at zero, which makes A's gradient zero
    student.model.train()
    student.model(**batch_of(student, tmp_path)).loss_lm.sum().backward()
    for name, parameter in student.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    chosen = {"language_model": "lora"} | choice
    for part, number in count_trainable(student.model).items():
        assert (number > 0) == (part == "rotation" or chosen.get(part, "none") != "none"), part


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_saved_adapter_loads_as_the_same_student(student_folder, tmp_path, choice):
    student = student_with(student_folder, **choice)
    perturb(student)
    trained = {part: how for part, how in ({"language_model": "lora"} | choice).items() if how != "none"}
    save_adapter(student.model, replace(adapter_record(student), template="plain", trained=trained), tmp_path / "a")
    batch = batch_of(student, tmp_path)
    expected = student.model.eval()(**batch).loss_lm
    read = load_student(tmp_path / "a", keep_lora_apart=True)
    assert torch.equal(read.model(**batch).loss_lm, expected)
    torch.testing.assert_close(load_student(tmp_path / "a").model(**batch).loss_lm, expected, rtol=1e-5, atol=1e-4)
    again = student_with(student_folder, **choice)
    assert not torch.allclose(again.model.eval()(**batch).loss_lm, expected)
    load_trained(again.model, tmp_path / "a")
    assert torch.equal(again.model.eval()(**batch).loss_lm, expected)


def test_every_part_has_its_learning_rate(student_folder):
    student = student_with(student_folder, projector="full", vision_tower="lora")
    rates = {id(p): group["lr"] for group in parameter_groups(student.model, RATES, 0.1) for p in group["params"]}
    decays = {
        id(p): group["weight_decay"] for group in parameter_groups(student.model, RATES, 0.1) for p in group["params"]
    }
    named = trainable_parameters(student.model)
    assert len(rates) == len(named)
    for name, parameter in named.items():
        expected = getattr(RATES, part_of(name)) * (16.0 if "lora_B" in name else 1.0)
        assert rates[id(parameter)] == expected, name
        decayed = part_of(name) != "rotation" and not name.endswith("bias")
        assert decays[id(parameter)] == (0.1 if decayed else 0.0), name


def test_a_frozen_tower_stays_in_evaluation_mode(student_folder):
    frozen, trained = (student_with(student_folder, vision_tower=how).model.train() for how in ("none", "lora"))
    assert not any(module.training for module in frozen.llava.base_model.model.model.vision_tower.modules())
    assert any(module.training for module in trained.llava.base_model.model.model.vision_tower.modules())
    assert frozen.llava.base_model.model.model.language_model.training


def test_trained_values_are_float32_and_load_in_the_models_precision(student_folder, tmp_path):
    student = student_with(student_folder, dtype="bfloat16", projector="full")
    perturb(student)
    trained = {"language_model": "lora", "projector": "full"}
    save_adapter(student.model, replace(adapter_record(student), trained=trained), tmp_path / "a")
    loaded = load_student(tmp_path / "a", dtype="bfloat16", keep_lora_apart=True)
    weights = {name: p for name, p in loaded.model.named_parameters() if part_of(name) == "projector"}
    expected = {name: p for name, p in student.model.named_parameters() if part_of(name) == "projector"}
    for name, weight in weights.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, expected[name].bfloat16())


def test_missing_files_and_wrong_shapes_are_reported(student_folder, tmp_path):
    student = student_with(student_folder, projector="full")
    record = replace(adapter_record(student), trained={"language_model": "lora", "projector": "full"})
    save_adapter(student.model, record, tmp_path / "a")
    (tmp_path / "a" / "projector.safetensors").unlink()
    with pytest.raises(InputError, match=r"projector\.safetensors is missing"):
        load_student(tmp_path / "a")
    wider = TrainableParts(rank=3, alpha=4, dropout=0.0)
    other = open_student(student_folder, layers=[LAYER], rotation="full", template="plain")
    make_trainable(other.model, wider, base=other.base)
    with pytest.raises(InputError, match=r"lora_A\.weight has shape \(2, 64\), but the student needs \(3, 64\)"):
        load_trained(other.model, tmp_path / "a")
    fresh = open_student(student_folder, layers=[LAYER], rotation="full")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        attach_adapter(fresh.model, record, tmp_path / "a")


def test_a_student_without_trainable_parts_is_refused(student_folder):
    with pytest.raises(SettingsError, match="there is nothing to train"):
        student_with(student_folder, rotation="none", language_model="none")


def test_a_batch_without_images_has_zero_gradients_for_image_parameters(student_folder, tmp_path):
    """Under DDP and FSDP2, every process must have a gradient for every parameter."""
    student = student_with(student_folder, projector="full")
    text = [item for item in mixed_samples(tmp_path) if not item.images]
    batch = Collator(pad_token_id=0)([encode_sample(student, item, with_answer=True) for item in text])
    student.model.train()(**batch).loss_lm.sum().backward()
    for name, parameter in trainable_parameters(student.model).items():
        assert parameter.grad is not None, name
        if part_of(name) in ("projector", "rotation"):
            assert parameter.grad.abs().max() == 0
