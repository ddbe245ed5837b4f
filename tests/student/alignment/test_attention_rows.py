"""Attention rows computed in addition to sdpa equal those of eager attention."""

import copy

import pytest
import torch
from medalign.student.alignment import attention_rows
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.families.bases import load_llava
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.inputs.spans import find_images, question_rows
from medalign.student.loading.student_loading import open_student
from students import mixed_samples

LAYER = 2


@pytest.mark.parametrize("pad_left", [False, True])
def test_rows_equal_eager_attention_in_a_mixed_batch(student_folder, tmp_path, pad_left):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    encoded = [encode_sample(student, sample, with_answer=True) for sample in mixed_samples(tmp_path)]
    batch = Collator(pad_token_id=0, pad_left=pad_left)(encoded)
    (layer,) = student.model(**batch).layers
    captured = layer.attention

    eager = load_llava(student_folder, "float32")
    eager.set_attn_implementation("eager")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    weights = eager(**inputs, output_attentions=True).attentions[LAYER]
    images = find_images(batch["input_ids"], 3, 9)
    rows = question_rows(batch["input_ids"], batch["attention_mask"], batch["labels"], images, 3)
    expected = torch.stack(
        [
            weights[sample][:, row][:, :, columns].mean(dim=(0, 1))
            for sample, row, columns in zip(images.sample, rows, images.positions, strict=True)
        ]
    )
    torch.testing.assert_close(captured, expected, atol=1e-5, rtol=0)
    assert captured.std() > 1e-4  # not uniform, so the comparison can fail


def test_only_one_layer_is_changed(student_folder):
    llava = load_llava(student_folder, "float32")
    AlignedStudent(llava, layers=[LAYER], rotation="none", patches=9)
    implementations = [layer.self_attn.config._attn_implementation for layer in llava.model.language_model.layers]
    assert implementations == ["sdpa", "sdpa", "medalign_sdpa_taps", "sdpa"]


def test_rows_that_were_not_requested_are_an_error(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    with student.model.observe() as seen, pytest.raises(RuntimeError, match="not requested"):
        seen.attention_at(LAYER)


def test_gradients_of_attention_reach_queries_and_keys(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    attention = student.model.llava.model.language_model.layers[LAYER].self_attn
    attention.requires_grad_(True)
    encoded = [encode_sample(student, sample, with_answer=True) for sample in mixed_samples(tmp_path)]
    output = student.model(**Collator(pad_token_id=0)(encoded))
    output.layers[0].attention.square().sum().backward()
    assert attention.q_proj.weight.grad.abs().max() > 0
    assert attention.k_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("pad_left", [False, True])
def test_long_questions_in_parts_give_the_same_rows_and_gradients(student_folder, tmp_path, monkeypatch, pad_left):
    found = []
    for at_once in (1000, 2):
        monkeypatch.setattr(attention_rows, "ROWS_AT_ONCE", at_once)
        student = open_student(student_folder, layers=[LAYER], rotation="none")
        attention = student.model.llava.model.language_model.layers[LAYER].self_attn.requires_grad_(True)
        encoded = [encode_sample(student, sample, with_answer=True) for sample in mixed_samples(tmp_path)]
        rows = student.model(**Collator(pad_token_id=0, pad_left=pad_left)(encoded)).layers[0].attention
        rows.square().sum().backward()
        found.append((rows, attention.q_proj.weight.grad, attention.k_proj.weight.grad))
    for whole, in_parts in zip(*found, strict=True):
        torch.testing.assert_close(in_parts, whole, atol=1e-7, rtol=1e-5)


def test_a_copy_of_the_model_keeps_its_own_rows(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    twin = copy.deepcopy(student.model)
    torch.nn.init.normal_(twin.rotations[LAYER].weight)
    batch = Collator(pad_token_id=0)([encode_sample(student, mixed_samples(tmp_path)[0], with_answer=True)])
    (before,), (of_twin,), (after,) = student.model(**batch).layers, twin(**batch).layers, student.model(**batch).layers
    torch.testing.assert_close(after.attention, before.attention, atol=0, rtol=0)
    assert (of_twin.attention - before.attention).abs().max() > 1e-3
    taps = [model.llava.model.language_model.layers[LAYER].self_attn.medalign_taps for model in (student.model, twin)]
    assert taps == [[], []]
    assert taps[0] is not taps[1]
