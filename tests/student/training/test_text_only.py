"""A batch without images runs the same modules as any other, in the same order, without an effect on training.

Processes that share gradients (ZeRO-2, ZeRO-3) or parameters (ZeRO-3, FSDP2) would otherwise mix them up, without an
error, where one has images in its share of a step and another has none.
"""

import pytest
import torch
from medalign.student.adapters.trainable import TrainableParts, make_trainable, trainable_parameters
from medalign.student.families.bases import load_llava
from medalign.student.inputs.collation import Collator, EncodedSample, encode_sample
from medalign.student.loading.student_loading import open_student
from students import LAYER, mixed_samples

SILENT = EncodedSample(input_ids=torch.zeros(1, dtype=torch.long), labels=torch.tensor([-100]), pixel_values=None)
"""Pads a process's share of the last step of an epoch."""


def trained_student(folder, rotation, tower):
    student = open_student(folder, layers=[LAYER], rotation=rotation, template="vicuna_v1")
    parts = TrainableParts(projector="full", vision_tower=tower, rank=2, alpha=4, dropout=0.0)
    make_trainable(student.model, parts, base=student.base)
    student.model.train()
    return student


def batches(student, folder):
    """One sample with an image, one without, and an empty one."""
    with_image, text, *_ = (encode_sample(student, item, with_answer=True) for item in mixed_samples(folder))
    collate = Collator(pad_token_id=0)
    targets = {"E_v": torch.randn(1, 9, 5), "E_a": torch.rand(1, 9)}
    return collate([with_image]) | targets, collate([text]), collate([SILENT])


def record(student, batch):
    """Names of the modules in the order they run, and of the parameters in the order of their gradients."""
    ran, came, hooks = [], [], []
    for name, module in student.model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: ran.append(name)))
    for name, parameter in trainable_parameters(student.model).items():
        hooks.append(parameter.register_post_accumulate_grad_hook(lambda _, name=name: came.append(name)))
    student.model.zero_grad()
    output = student.model(**batch)
    losses = [output.loss_lm, output.loss_vis, output.loss_att]
    sum(loss.sum() for loss in losses if loss is not None).backward()
    for hook in hooks:
        hook.remove()
    return ran, came


@pytest.mark.parametrize("tower", ["none", "lora", "full"])
@pytest.mark.parametrize("rotation", ["full", "train_only"])
def test_modules_and_gradients_have_the_same_order_in_every_batch(student_folder, tmp_path, rotation, tower):
    student = trained_student(student_folder, rotation, tower)
    expected, *others = (record(student, batch) for batch in batches(student, tmp_path))
    assert set(expected[1]) == set(trainable_parameters(student.model))
    for ran, came in others:
        assert ran == expected[0]
        assert came == expected[1]


@pytest.mark.parametrize("rotation", ["full", "train_only"])
def test_a_blank_image_does_not_change_the_result(student_folder, tmp_path, rotation):
    student = trained_student(student_folder, rotation, "full")
    torch.nn.init.normal_(student.model.rotations[LAYER].weight)
    _, text, silent = batches(student, tmp_path)
    output = student.model(**text)
    stock = load_llava(student_folder, "float32")(**text).loss
    torch.testing.assert_close(output.loss_lm.sum() / output.answer_tokens.sum(), stock)
    assert output.loss_vis is output.loss_att is None
    record(student, text)
    for name, parameter in trainable_parameters(student.model).items():
        if "lora_" not in name:
            assert not parameter.grad.any(), name
    record(student, silent)
    assert not any(parameter.grad.any() for parameter in trainable_parameters(student.model).values())
