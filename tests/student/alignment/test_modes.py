"""Rotation modes, several aligned layers, and gradient checkpointing, compared with simple implementations."""

import copy

import pytest
import torch
from medalign.student.adapters.adapter_folder import add_lora, save_adapter
from medalign.student.alignment.losses import visual_alignment_loss
from medalign.student.families.bases import load_llava
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.adapter_loading import attach_adapter
from medalign.student.loading.student_loading import open_student
from medalign.teacher_cache.geometry.cosines import cosine_matrix
from students import adapter_record, mixed_samples

OPTIONS = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}


def batch_of(student, folder, generate=False):
    encoded = [encode_sample(student, item, with_answer=not generate) for item in mixed_samples(folder)]
    batch = Collator(pad_token_id=0, pad_left=generate)(encoded)
    if generate:
        del batch["labels"]
        return batch
    generator = torch.Generator().manual_seed(3)
    return batch | {"E_v": torch.randn(4, 9, 5, generator=generator), "E_a": torch.rand(4, 9, generator=generator)}


def disturb(student):
    """Non-zero W and LoRA."""
    with torch.no_grad():
        for name, parameter in sorted(student.model.named_parameters()):
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.05)


def test_train_only_changes_only_the_compared_tokens(student_folder, tmp_path):
    student = open_student(student_folder, layers=[2], rotation="train_only")
    disturb(student)
    batch = batch_of(student, tmp_path)
    output = student.model(**batch)
    plain = open_student(student_folder, layers=[2], rotation="none").model(**batch)
    torch.testing.assert_close(output.loss_lm, plain.loss_lm, atol=0, rtol=0)
    torch.testing.assert_close(output.loss_att, plain.loss_att, atol=0, rtol=0)
    W = student.model.rotations[2].weight
    rotated = plain.layers[0].tokens + plain.layers[0].tokens @ W.T
    expected = visual_alignment_loss(cosine_matrix(rotated), cosine_matrix(batch["E_v"]))
    torch.testing.assert_close(output.loss_vis, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(output.loss_vis, plain.loss_vis)
    output.loss_vis.sum().backward()
    assert W.grad.abs().max() > 0


def test_train_only_generates_like_stock_transformers(student_folder, tmp_path):
    student = open_student(student_folder, layers=[2], rotation="train_only")
    torch.nn.init.normal_(student.model.rotations[2].weight, std=2.0)  # enough to change the answers where it acts
    batch = batch_of(student, tmp_path, generate=True)
    ours = student.model.llava.generate(**batch, **OPTIONS)
    assert ours.tolist() == load_llava(student_folder, "float32").generate(**batch, **OPTIONS).tolist()
    full = open_student(student_folder, layers=[2], rotation="full")
    full.model.load_state_dict(student.model.state_dict())
    assert ours.tolist() != full.model.llava.generate(**batch, **OPTIONS).tolist()


def test_losses_of_several_layers_are_averaged(student_folder, tmp_path):
    both = open_student(student_folder, layers=[1, 3], rotation="none")
    batch = batch_of(both, tmp_path)
    output = both.model(**batch)
    alone = [open_student(student_folder, layers=[layer], rotation="none").model(**batch) for layer in (1, 3)]
    for name in ("loss_vis", "loss_att"):
        mean = (getattr(alone[0], name) + getattr(alone[1], name)) / 2
        torch.testing.assert_close(getattr(output, name), mean, atol=1e-6, rtol=0)
    assert [layer.layer for layer in output.layers] == [1, 3]


def test_every_layer_has_a_rotation_that_is_saved(student_folder, tmp_path):
    student = open_student(student_folder, layers=[1, 3], rotation="full")
    add_lora(student.model, base=student.base, rank=2, alpha=4, dropout=0.0)
    disturb(student)
    rotations = student.model.rotations
    assert not torch.equal(rotations[1].weight, rotations[3].weight)
    record = adapter_record(student)
    save_adapter(student.model, record, tmp_path / "adapter")
    fresh = open_student(student_folder, layers=[1, 3], rotation="full")
    attach_adapter(fresh.model, record, tmp_path / "adapter")
    batch = batch_of(student, tmp_path)
    torch.testing.assert_close(fresh.model(**batch).loss_lm, student.model(**batch).loss_lm, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["non_reentrant", "reentrant"])
@pytest.mark.parametrize("rotation", ["full", "train_only"])
def test_checkpointing_gives_the_same_gradients(student_folder, tmp_path, kind, rotation):
    student = open_student(student_folder, layers=[1, 2], rotation=rotation)
    add_lora(student.model, base=student.base, rank=4, alpha=8, dropout=0.0)
    disturb(student)
    batch = batch_of(student, tmp_path)
    gradients, counts = [], []
    for checkpointed in (False, True):
        model = copy.deepcopy(student.model).train()
        if checkpointed:
            model.checkpoint_gradients(kind)
        calls = []
        for layer in model.llava.get_decoder().layers:
            layer.self_attn.register_forward_hook(lambda module, *_, calls=calls: calls.append(module.layer_idx))
        output = model(**batch)
        (output.loss_lm.sum() + output.loss_vis.sum() + output.loss_att.sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        counts.append([calls.count(layer) for layer in range(4)])
    assert counts == [[1, 1, 1, 1], [2, 1, 1, 2]], "the layers that are not aligned run again"
    assert gradients[0].keys() == gradients[1].keys()
    assert sum(name.startswith("aligned.") for name in gradients[0]) == 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_losses_close_and_w_in_float32(student_folder, tmp_path, dtype):
    student = open_student(student_folder, layers=[2], rotation="full")
    disturb(student)
    batch = batch_of(student, tmp_path)
    exact = student.model(**batch)
    with torch.autocast("cpu", dtype=dtype):
        output = student.model(**batch)
    (output.loss_vis.sum() + output.loss_att.sum()).backward()
    for name in ("loss_vis", "loss_att"):
        assert getattr(output, name).dtype == torch.float32
        torch.testing.assert_close(getattr(output, name), getattr(exact, name), atol=0.02, rtol=0.05)
    W = student.model.rotations[2].weight
    assert W.dtype == W.grad.dtype == torch.float32
