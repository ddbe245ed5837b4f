"""The layout of a batch, computed in the collator, and logits only for labels."""

import pickle
from dataclasses import fields, is_dataclass

import pytest
import torch
from medalign.errors import InputError
from medalign.student.inputs.batch_layout import BatchLayout, with_tensors
from medalign.student.inputs.collation import AlignmentCollator, Collator, EncodedSample, encode_sample
from medalign.student.loading.student_loading import open_student
from students import LAYER, mixed_samples
from torch.nn import functional


@pytest.fixture(scope="module")
def student(student_folder):
    return open_student(student_folder, layers=[LAYER], rotation="full")


@pytest.fixture(scope="module")
def batch(student, tmp_path_factory):
    samples = mixed_samples(tmp_path_factory.mktemp("images"))
    return AlignmentCollator.of(student)([encode_sample(student, sample, with_answer=True) for sample in samples])


def tensors_of(record) -> list[torch.Tensor]:
    values = [getattr(record, field.name) for field in fields(record)]
    own = [value for value in values if isinstance(value, torch.Tensor)]
    return own + [tensor for value in values if is_dataclass(value) for tensor in tensors_of(value)]


def test_positions_equal_those_of_a_simple_search(student, batch):
    layout, ids, labels = batch["layout"], batch["input_ids"], batch["labels"]
    expected = [(row, place - 1, int(labels[row, place])) for row in range(4) for place in range(1, ids.shape[1])]
    expected = [entry for entry in expected if entry[2] != -100]
    places = layout.labels
    assert list(zip(places.sample.tolist(), places.position.tolist(), places.token.tolist(), strict=True)) == expected
    assert places.of_sample.tolist() == [sum(row == entry[0] for entry in expected) for row in range(4)]
    assert layout.counts == (len(expected), 4, 4)
    assert layout.images.sample.tolist() == [0, 2, 2, 3]
    for image, row in enumerate(layout.images.sample.tolist()):
        last = int(layout.images.positions[image, -1])
        first_label = next(place for place in range(ids.shape[1]) if labels[row, place] != -100 and place > last)
        question = [place for place in range(last + 1, first_label) if ids[row, place] != student.model.image_token_id]
        assert layout.rows.index[image][layout.rows.valid[image]].tolist() == question
    assert not layout.padded_left


def test_a_layout_is_moved_with_its_batch(batch):
    """Pickled by a worker, then moved with all its tensors; otherwise the host would wait to compute positions."""
    layout = pickle.loads(pickle.dumps(batch["layout"]))
    assert len(tensors_of(layout)) == 9
    moved = layout.to("meta", non_blocking=True)
    assert all(tensor.is_meta for tensor in tensors_of(moved))
    assert moved.counts == layout.counts
    flipped = with_tensors(layout, lambda tensor: tensor.flip(0))
    for before, after in zip(tensors_of(layout), tensors_of(flipped), strict=True):
        assert after.tolist() == before.tolist()[::-1]


def test_the_collator_refuses_a_truncated_image(student):
    cut = EncodedSample(input_ids=torch.full((5,), 3), labels=torch.full((5,), -100), pixel_values=None)
    with pytest.raises(InputError, match="sample 0 of the batch has 5 image tokens, not a multiple of 9"):
        AlignmentCollator.of(student)([cut])


def test_logits_are_computed_only_for_labels(student, batch):
    """Answers at four different positions, whose union over the batch would have nearly four times as many rows."""
    rows = []
    handle = student.model.stock.lm_head.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[:-1]))
    try:
        student.model(**batch)
    finally:
        handle.remove()
    assert rows == [(batch["layout"].counts[0],)]


def test_the_answer_loss_is_the_cross_entropy_of_all_logits(student, batch):
    """Compared with transformers' logits of every position, with its padding mask."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        logits = student.model.stock(**inputs).logits
        nll = functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=-100, reduction="none"
        )
        output = student.model(**batch)
        plain = student.model(**{name: value for name, value in batch.items() if name != "layout"})
    torch.testing.assert_close(output.loss_lm, nll.sum(dim=1))
    torch.testing.assert_close(output.loss_lm, plain.loss_lm)
    assert output.answer_tokens.tolist() == (batch["labels"][:, 1:] != -100).sum(dim=1).tolist()


def test_padding_on_the_left_keeps_its_mask(student, tmp_path):
    """Causal attention alone would attend to padding on the left."""
    samples = mixed_samples(tmp_path)
    encoded = [encode_sample(student, sample, with_answer=True) for sample in samples]
    right, left = (Collator(pad_token_id=0, pad_left=side)(encoded) for side in (False, True))
    layout = BatchLayout.of(left["input_ids"], left["attention_mask"], left["labels"], image_token_id=3, patches=9)
    assert layout.padded_left
    with torch.no_grad():
        torch.testing.assert_close(student.model(**left).loss_lm, student.model(**right).loss_lm)
