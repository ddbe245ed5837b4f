"""Attention rows of all layers in one pass equal those of eager attention, with W, LoRA and padding on either side."""

import pytest
import torch
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.inputs.spans import find_images, question_rows
from medalign.student.inspection.question_attention import attention_of_layers, question_attention
from medalign.student.loading.student_loading import open_student
from students import LAYER, mixed_samples, sample, trainable, write_images


def implementations(model):
    return [layer.self_attn.config._attn_implementation for layer in model.llava.get_decoder().layers]


def eager_rows(model, batch):
    """The same rows from eager attention's full weights, [K, layers, N]."""
    model.llava.set_attn_implementation("eager")
    for layer in model.llava.get_decoder().layers:
        layer.self_attn.config = model.llava.get_decoder().config
    weights = model.llava(**batch, output_attentions=True).attentions
    images = find_images(batch["input_ids"], 3, 9)
    rows = question_rows(batch["input_ids"], batch["attention_mask"], None, images, 3)
    return torch.stack(
        [
            torch.stack([layer[where][:, row][:, :, columns].mean(dim=(0, 1)) for layer in weights])
            for where, row, columns in zip(images.sample, rows, images.positions, strict=True)
        ]
    )


@pytest.mark.parametrize("pad_left", [False, True])
def test_every_layer_equals_eager_attention(student_folder, tmp_path, pad_left):
    student = trainable(student_folder)
    student.model.eval()
    with torch.no_grad():  # W and LoRA start at zero
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name or name.startswith("aligned."):
                parameter.normal_(std=0.05)
    encoded = [encode_sample(student, item, with_answer=False) for item in mixed_samples(tmp_path)]
    batch = Collator(pad_token_id=0, pad_left=pad_left)(encoded)
    del batch["labels"]
    captured = attention_of_layers(student.model, **batch)
    assert captured.shape == (4, 4, 9)
    with torch.no_grad():
        expected = eager_rows(student.model, batch)
    torch.testing.assert_close(captured, expected, atol=1e-5, rtol=0)
    assert (captured.std(dim=-1) > 1e-4).all()  # not uniform, so the comparison can fail
    assert (captured[:, 1:] - captured[:, :-1]).abs().amax(dim=(1, 2)).min() > 1e-3  # layers differ


def test_attention_of_the_aligned_layer_equals_that_in_training(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    paths = write_images(tmp_path / "images", [(24, 24), (40, 20)])
    samples = [sample(f"Question {number}?", "yes: it is", path) for number, path in enumerate(paths)]
    batch = Collator(pad_token_id=0)([encode_sample(student, item, with_answer=True) for item in samples])
    compared = student.model(**batch).layers[0].attention
    torch.testing.assert_close(question_attention(student, samples)[:, LAYER], compared.detach(), atol=1e-6, rtol=0)


def test_a_batch_equals_single_questions(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    paths = write_images(tmp_path / "images", [(24, 24), (40, 20), (18, 30)])
    samples = [sample("Why? " * (number + 1), "yes", path) for number, path in enumerate(paths)]
    together = question_attention(student, samples)
    alone = torch.cat([question_attention(student, [item]) for item in samples])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_taps_are_removed(student_folder, tmp_path):
    """Afterward, the layers, including the aligned one, compute only their attention."""
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    (path,) = write_images(tmp_path / "images", [(24, 24)])
    question_attention(student, [sample("What?", "yes", path)])
    layers = student.model.llava.get_decoder().layers
    taps = [getattr(layer.self_attn, "medalign_taps", []) for layer in layers]
    assert taps == [[], [], [], []]
    assert not any("eager" in implementation for implementation in implementations(student.model))
