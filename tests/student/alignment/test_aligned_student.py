"""Rotation and losses of a complete student."""

import pytest
import torch
from medalign.errors import SettingsError
from medalign.student.adapters.adapter_folder import add_lora
from medalign.student.families.bases import load_llava
from medalign.student.inputs.collation import Collator, encode_sample
from medalign.student.loading.student_loading import load_student, open_student
from students import mixed_samples, sample, write_images

LAYER = 2


def aligned(folder, **options):
    student = open_student(folder, layers=[LAYER], rotation="full", **options)
    with torch.no_grad():
        student.model.rotations[LAYER].weight.normal_(std=0.05)
    return student


def with_targets(student, samples, seed=0):
    """A batch with random teacher targets for each image, which do not depend on how samples are batched."""
    encoded = [encode_sample(student, item, with_answer=True) for item in samples]
    batch = Collator(pad_token_id=0)(encoded)
    count = sum(len(item.images) for item in samples)
    generator = torch.Generator().manual_seed(seed)
    return batch, torch.randn(count, 9, 5, generator=generator), torch.rand(count, 9, generator=generator)


@pytest.mark.parametrize("normalization", ["sum", "softmax", "l2"])
def test_losses_of_a_mixed_batch_equal_those_of_single_samples(student_folder, tmp_path, normalization):
    student = aligned(student_folder, attention_normalization=normalization)
    samples = mixed_samples(tmp_path)
    batch, E_v, E_a = with_targets(student, samples)
    together = student.model(**batch, E_v=E_v, E_a=E_a)
    alone = {"loss_lm": [], "loss_vis": [], "loss_att": []}
    first = 0
    for item in samples:
        single = Collator(pad_token_id=0)([encode_sample(student, item, with_answer=True)])
        last = first + len(item.images)
        targets = {"E_v": E_v[first:last], "E_a": E_a[first:last]} if item.images else {}
        output = student.model(**single, **targets)
        alone["loss_lm"].append(output.loss_lm)
        alone["loss_vis"] += [output.loss_vis] if item.images else []
        alone["loss_att"] += [output.loss_att] if item.images else []
        first = last
    for name, values in alone.items():
        torch.testing.assert_close(getattr(together, name), torch.cat(values), atol=1e-5, rtol=0)


def test_answer_loss_equals_transformers_loss(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none")
    batch, _, _ = with_targets(student, mixed_samples(tmp_path))
    output = student.model(**batch)
    reference = load_llava(student_folder, "float32")(**batch).loss
    torch.testing.assert_close(output.loss_lm.sum() / output.answer_tokens.sum(), reference)


def test_rotation_changes_only_image_tokens(student_folder, tmp_path):
    """(I + W) X at the input of layer l, compared with a direct edit of the hidden states."""
    student = aligned(student_folder)
    batch, _, _ = with_targets(student, mixed_samples(tmp_path)[:1])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    plain = load_llava(student_folder, "float32")
    seen = {}
    W = student.model.rotations[LAYER].weight.detach()

    def edit(module, args, kwargs):
        hidden = args[0].clone()
        seen["before"] = hidden.clone()
        for position in range(hidden.shape[1]):
            if batch["input_ids"][0, position] == 3:
                hidden[0, position] = hidden[0, position] + W @ hidden[0, position]
        return (hidden, *args[1:]), kwargs

    plain.model.language_model.layers[LAYER].register_forward_pre_hook(edit, with_kwargs=True)
    torch.testing.assert_close(student.model.llava(**inputs).logits, plain(**inputs).logits, atol=1e-5, rtol=1e-5)
    expected = seen["before"][0, batch["input_ids"][0] == 3] @ (torch.eye(64) + W).T
    torch.testing.assert_close(student.model(**batch).layers[0].tokens[0], expected, atol=1e-5, rtol=1e-5)


def test_only_rotation_and_lora_have_gradients(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    add_lora(student.model, base=student.base, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():  # B starts at zero, which would make A's gradient zero
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    batch, E_v, E_a = with_targets(student, mixed_samples(tmp_path))
    output = student.model(**batch, E_v=E_v, E_a=E_a)
    (output.loss_lm.sum() + output.loss_vis.sum() + output.loss_att.sum()).backward()
    trained = {name for name, p in student.model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    expected = {n for n, _ in student.model.named_parameters() if "lora_" in n} | {"aligned.0.rotation.weight"}
    assert trained == expected
    assert len(expected) == 4 * 7 * 2 + 1  # four layers, seven linear maps each, A and B
    assert not any("vision" in name or "projector" in name or "lm_head" in name for name in expected)


def test_visual_loss_trains_the_rotation(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    batch, E_v, _ = with_targets(student, mixed_samples(tmp_path))
    rotation = student.model.rotations[LAYER].weight
    optimizer = torch.optim.Adam([rotation], lr=3e-3)
    losses = []
    for _ in range(15):
        loss = student.model(**batch, E_v=E_v).loss_vis.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_zero_rotation_without_lora_generates_like_the_plain_model(student_folder, tmp_path):
    samples = mixed_samples(tmp_path)
    student = open_student(student_folder, layers=[LAYER], rotation="full")
    plain = load_llava(student_folder, "float32")
    collate = Collator(pad_token_id=0, pad_left=True)
    for item in samples:
        batch = collate([encode_sample(student, item, with_answer=False)])
        del batch["labels"]
        ours = student.model.llava.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=0)
        theirs = plain.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert ours.tolist() == theirs.tolist()


def test_rotation_at_prefill_equals_generation_without_a_cache(student_folder, tmp_path):
    student = aligned(student_folder)
    with torch.no_grad():
        student.model.rotations[LAYER].weight.mul_(10)  # enough to change the answer
    plain = load_student(student_folder).model
    image = write_images(tmp_path, [(30, 24)])[0]
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    changed = []
    for question in ("What?", "Which side?", "Is it a scan?"):
        batch = Collator(pad_token_id=0)([encode_sample(student, sample(question, "", image), with_answer=False)])
        del batch["labels"]
        cached = student.model.llava.generate(**batch, **options)
        assert cached.tolist() == student.model.llava.generate(**batch, **options, use_cache=False).tolist()
        changed.append(cached.tolist() != plain.llava.generate(**batch, **options).tolist())
    assert any(changed)


def test_a_nonexistent_layer_is_refused(student_folder):
    with pytest.raises(SettingsError, match=r"alignment.layer is 20.*layers 0 to 3"):
        open_student(student_folder, layers=[20], rotation="full")


def test_a_colon_in_the_answer_changes_nothing(student_folder, tmp_path):
    student = aligned(student_folder)
    image = write_images(tmp_path, [(24, 24)])[0]
    rows = []
    for answer in ("left: lung", "left; lung"):
        batch, _, _ = with_targets(student, [sample("Where?", answer, image)])
        rows.append(student.model(**batch).layers[0].attention)
    torch.testing.assert_close(rows[0], rows[1])
