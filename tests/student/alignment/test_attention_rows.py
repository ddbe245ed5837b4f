"""Attention rows computed in addition to sdpa equal those of eager attention."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from medalign.errors import InputError
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


def slow_rows(which, ids, labels, last):
    """Rows of M_a in one sample after an image that ends at `last`, position by position."""
    rows = []
    for place in range(last + 1, len(ids)):
        answered = any(labels[p] != -100 for p in range(last + 1, place + 1))
        asks = ids[place] not in (0, 3) and not answered
        predicts = ids[place] not in (0, 3) and place + 1 < len(ids) and labels[place + 1] != -100
        if (which != "answer" and asks) or (which != "question" and predicts):
            rows.append(place)
    return rows


@pytest.mark.parametrize("which", ["answer", "both"])
@pytest.mark.parametrize("pad_left", [False, True])
def test_the_chosen_rows_give_the_loss_of_a_slow_loop(student_folder, tmp_path, which, pad_left):
    """Several images, a text-only sample, an earlier turn, and a second labeled turn in the first sample."""
    student = open_student(student_folder, layers=[LAYER], rotation="none", attention_rows=which)
    encoded = [encode_sample(student, sample, with_answer=True) for sample in mixed_samples(tmp_path)]
    first = encoded[0]
    turn = torch.tensor([40, 41, 42]), torch.tensor([-100, -100, 42])
    encoded[0] = replace(
        first, input_ids=torch.cat([first.input_ids, turn[0]]), labels=torch.cat([first.labels, turn[1]])
    )
    batch = Collator(pad_token_id=0, pad_left=pad_left)(encoded)
    E_a = torch.rand(4, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = student.model(**batch, E_a=E_a)
    eager = load_llava(student_folder, "float32")
    eager.set_attn_implementation("eager")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        weights = eager(**inputs, output_attentions=True).attentions[LAYER].double()
    images = find_images(batch["input_ids"], 3, 9)
    for image, sample in enumerate(images.sample.tolist()):
        places = images.positions[image].tolist()
        rows = slow_rows(which, batch["input_ids"][sample].tolist(), batch["labels"][sample].tolist(), places[-1])
        M_a = [sum(float(head[row, place]) for head in weights[sample] for row in rows) for place in places]
        p, t = ([value / sum(values) for value in values] for values in (M_a, E_a[image].tolist()))
        slow = sum(b * math.log(b / a) for a, b in zip(p, t, strict=True))
        assert output.loss_att[image].item() == pytest.approx(slow, abs=1e-6)
        expected = torch.tensor(M_a) / (len(rows) * weights.shape[1])
        torch.testing.assert_close(output.layers[0].attention[image], expected, atol=1e-6, rtol=0)


def test_an_image_without_an_answer_after_it_has_no_answer_rows(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none", attention_rows="answer")
    encoded = encode_sample(student, mixed_samples(tmp_path)[0], with_answer=False)
    with pytest.raises(InputError, match=r"image 0 .* has no answer token after it.*attention_rows to question"):
        student.model(**Collator(pad_token_id=0)([encoded]))
